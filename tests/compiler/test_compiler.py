"""Whole networks, compiled: right to 1e-5 of the plain definition, at every feature level, on real images.

By default a few small ones. Every network of the zoo, and all images, take hours on one core:

    python -m pytest -m long tests/compiler/test_compiler.py

SMALLCNN_CACHE=folder keeps the compiled kernels from one run to the next.
"""

import shutil
import subprocess
import sys

import numpy as np
import pytest

pytest.importorskip("halide")
pytest.importorskip("ziglang")

import machine
from artifacts import artifact
from compiled_networks import TOLERANCE, agree, check, compiled_for, equal, noise, wanted
from imagenet_images import CHECKPOINTS
from networks import dilated, every_integer, every_number, every_op, every_result, resized, tiny
from shared_files import shared
from smallcnn import runtime
from smallcnn.checkpoints.importing import import_checkpoint
from smallcnn.compiler import link, targets
from smallcnn.compiler.compiling import compile_file
from smallcnn.engines import compiled
from smallcnn.errors import FileError, SmallcnnError
from smallcnn.ir.types import LOGITS
from smallcnn.model import store
from zoo_models import MODELS, SMALL, build

QUICK = ("effnet_cifar", "shufflenet_v2:scale=0.5")
MAIN = (
    "mobilenet_v1", "mobilenet_v1:width=0.5", "mobilenet_v2", "shufflenet_v1", "squeezenet_1_1", "effnet_cifar",
    "effnet", "xception", "shufflenet_v2", "mobilenet_v3_large", "mobilenet_v3_small", "mobilenet_v4_conv_small",
    "nasnet_a_mobile",
)  # fmt: skip
ODD = (65, 97)


# --- the zoo --------------------------------------------------------------------------------------------------------


def test_every_operator():
    check(every_op())


@pytest.mark.parametrize("network", [dilated, resized], ids=lambda network: network.__name__)
def test_operators_of_detectors(network):
    check(network())


def test_every_number_type():
    check(every_number())


@pytest.mark.parametrize("text", QUICK)
def test_small_network(text):
    check(build(text, resolution=33))


@pytest.mark.long
@pytest.mark.parametrize("text", MODELS)
def test_network_on_odd_planes(text):
    check(build(text, resolution=ODD))


@pytest.mark.long
@pytest.mark.parametrize("text", SMALL)
def test_network_for_small_pictures(text):
    check(build(text, resolution=32))


@pytest.mark.long
@pytest.mark.parametrize("text", MAIN)
def test_network_at_its_own_size(text):
    check(build(text))


# --- feature levels and other machines ------------------------------------------------------------------------------


def runs(level: str) -> bool:
    """Whether this machine has that level of x86-64."""
    return targets.runs_here(targets.parse(f"x86-64-linux-{level}"))


@pytest.mark.parametrize("level", ["sse41", "avx2", "avxvnni", "avx512", "vnni"])
def test_feature_level(level):
    if not runs(level):
        pytest.skip(f"this machine has no {level}")
    check(every_number(), target=f"x86-64-linux-{level}")
    check(every_result(every_integer()), target=f"x86-64-linux-{level}")


@pytest.mark.long
@pytest.mark.parametrize("level", ["sse41", "avx2", "avx512"])
@pytest.mark.parametrize("text", ["mobilenet_v2:width=0.35", "shufflenet_v1:scale=0.25", "mobilenet_v3_small"])
def test_network_at_a_feature_level(text, level):
    if not runs(level):
        pytest.skip(f"this machine has no {level}")
    check(build(text, resolution=64), target=f"x86-64-linux-{level}")


@pytest.mark.skipif(machine.has("avx512") or not runs("sse41"), reason="needs a CPU without AVX-512")
def test_a_level_that_this_cpu_lacks(tmp_path):
    made = compile_file(artifact(tiny()), tmp_path / "tiny.so", target="x86-64-linux-avx512")
    assert made.error is None
    with pytest.raises(FileError, match=r"tiny\.so: built for avx512, this CPU has \w+: compile it with --target x86-"):
        compiled.load(tmp_path / "tiny.so")


IN_C = """
#include <stdio.h>
#include <stdlib.h>
#include "net.h"

int main(void) {
    size_t size = (size_t)net_height() * net_width() * net_channels(), bytes[10];
    uint8_t *image = malloc(size);
    void *outputs[10];
    for (int i = 0; i < net_output_count(); i++) {
        int shape[NET_DIMENSIONS], dimensions = net_output_shape(i, shape);
        bytes[i] = net_output_number(i) == NET_FLOAT32 || net_output_number(i) == NET_INT32 ? 4 : 1;
        for (int j = 0; j < dimensions; j++) bytes[i] *= shape[j];
        outputs[i] = malloc(bytes[i]);
    }
    net_net *net;
    if (net_create(2, &net)) return 100;
    while (fread(image, 1, size, stdin) == size) {
        if (net_run(net, image, outputs)) return 101;
        for (int i = 0; i < net_output_count(); i++) fwrite(outputs[i], 1, bytes[i], stdout);
    }
    return 0;
}
"""

IN_NODE = """
const fs = require("fs");
const module = new WebAssembly.Module(fs.readFileSync("net.wasm"));
const net = new WebAssembly.Instance(module).exports;
const size = net.smallcnn_height() * net.smallcnn_width() * net.smallcnn_channels();
const count = net.smallcnn_output_count(), memory_bytes = net.smallcnn_memory(1), all = fs.readFileSync(0);
let end = net.__heap_base.value;
const take = (bytes) => { const at = (end + 7) & ~7; end = at + bytes; return at; };
const handle = take(4), shape = take(12), places = take(4 * count), image = take(size), memory = take(memory_bytes);
const outputs = [];
const numbers = () => new Int32Array(net.memory.buffer);
const room = () => net.memory.grow(Math.max(0, Math.ceil((end - net.memory.buffer.byteLength) / 65536)));
room();
for (let i = 0; i < count; i++) {
    const dimensions = net.smallcnn_output_shape(i, shape);
    let bytes = [4, 1, 1, 4][net.smallcnn_output_number(i)];
    for (let j = 0; j < dimensions; j++) bytes *= numbers()[shape / 4 + j];
    outputs.push([take(bytes), bytes]);
    room();
    numbers()[places / 4 + i] = outputs[i][0];
}
new Uint8Array(net.memory.buffer, memory, memory_bytes).fill(255);
if (net.smallcnn_create_in(memory, memory_bytes, handle)) process.exit(100);
const context = numbers()[handle / 4];
for (let at = 0; at < all.length; at += size) {
    new Uint8Array(net.memory.buffer, image, size).set(all.subarray(at, at + size));
    if (net.smallcnn_run(context, image, places)) process.exit(101);
    for (const [start, bytes] of outputs) fs.writeSync(1, new Uint8Array(net.memory.buffer, start, bytes));
}
"""


def run_elsewhere(command, folder, graph):
    """The program, given images, prints the outputs of the plain definition, one after the other for each image."""
    images = noise(graph)
    done = subprocess.run(command, input=images.tobytes(), cwd=folder, capture_output=True, check=False, timeout=100)
    assert done.returncode == 0, done.stderr
    record = np.dtype([(name, tensor.number, tensor.shape) for name, tensor in graph.results.items()])
    got = np.frombuffer(done.stdout, record)
    answers, want = {name: got[name] for name in graph.results}, wanted(graph, images)
    equal(answers, want) if graph.integer else agree(answers, want)


def write_for(target, path, graph):
    link.write(compiled_for(target, graph).program, path, prefix="net")


ELSEWHERE = [
    "every_number",
    "every_integer",
    *[
        pytest.param(text, marks=pytest.mark.long)
        for text in ("mobilenet_v2:width=0.35", "effnet_cifar", "dilated", "resized")
    ],
]


def graph_of(text):
    made = {"every_number": every_number, "every_integer": every_integer, "dilated": dilated, "resized": resized}
    return made[text]() if text in made else build(text, resolution=32)


ON_ARM = [
    ("arm-64-linux", "every_number"),
    ("arm-64-linux-dotprod", "every_integer"),
    *[
        pytest.param(target, text, marks=pytest.mark.long)
        for target, text in [
            ("arm-64-linux", "every_integer"), ("arm-64-linux", "effnet_cifar"), ("arm-64-linux", "dilated"),
            ("arm-64-linux", "resized"),
            ("arm-64-linux-dotprod", "every_number"), ("arm-64-linux-dotprod", "mobilenet_v2:width=0.35"),
        ]
    ],
]  # fmt: skip


@pytest.mark.skipif(not shutil.which("qemu-aarch64"), reason="needs qemu-aarch64")
@pytest.mark.parametrize(("target", "text"), ON_ARM)
def test_arm(target, text, tmp_path):
    write_for(target, tmp_path / "net.o", graph_of(text))
    (tmp_path / "main.c").write_text(IN_C)
    compiler = [sys.executable, "-m", "ziglang", "cc", "-target", "aarch64-linux-musl", "-static"]
    subprocess.run([*compiler, "main.c", "net.o", "-o", "main"], cwd=tmp_path, check=True, timeout=100)
    run_elsewhere(["qemu-aarch64", "./main"], tmp_path, graph_of(text))


@pytest.mark.skipif(not shutil.which("node"), reason="needs node")
@pytest.mark.parametrize("text", ELSEWHERE)
def test_wasm(text, tmp_path):
    write_for("wasm", tmp_path / "net.wasm", graph_of(text))
    run_elsewhere(["node", "-e", IN_NODE], tmp_path, graph_of(text))


# --- real images --------------------------------------------------------------------------------------------------


PUBLIC = [(files, text) for files, text, *_ in CHECKPOINTS] + [
    (["mobilenet_v2_1.0_224_quant.tflite"], "mobilenet_v2"),
]
QUICK_PICTURES = 40


@pytest.mark.parametrize(
    ("files", "text", "most"),
    [(*PUBLIC[0], QUICK_PICTURES)] + [pytest.param(*row, None, marks=pytest.mark.long) for row in PUBLIC],
    ids=str,
)
def test_same_answers_as_onnxruntime(files, text, most, imagenet_images, tmp_path):
    if files[0].endswith(".tflite"):
        pytest.importorskip("tflite")
    model = import_checkpoint([shared(f"weights/{file}") for file in files], text)
    store.save(model, tmp_path / "m.safetensors")
    compile_file(model, tmp_path / "m.so")
    peer, net = (
        runtime.open(tmp_path / "m.safetensors", engine="onnxruntime", threads=1),
        compiled.load(tmp_path / "m.so"),
    )
    other = 0
    for path in sorted(imagenet_images.glob("*/*"))[:most]:
        image = model.preprocessing.prepare(path).pixels[None]
        want, got = peer.logits(image)[0], net.run(image)[LOGITS][0]
        error = np.abs(got - want).max() / np.abs(want).max()
        assert error < TOLERANCE, f"{path.name}: {error:.1e}"
        if got.argmax() != want.argmax():
            other += 1
            assert want.max() - want[got.argmax()] < TOLERANCE * np.abs(want).max(), f"{path.name}: not a tie"
    assert other <= 1, f"{other} ties went the other way"


@pytest.mark.parametrize(("name", "means"), [
    ("raspberry-pi", "arm-64-linux"), ("Raspberry_Pi", "arm-64-linux"), ("linux-arm64", "arm-64-linux"),
    ("windows", "x86-64-windows-avx2"), ("android", "arm-64-android"), ("macos", "arm-64-osx"), ("browser", "wasm"),
    ("linux", "x86-64-linux-avx2"), ("x86-64-linux-sse41", "x86-64-linux-sse41"),
])  # fmt: skip
def test_the_names_people_use_for_machines(name, means):
    assert targets.parse(name).name == means


def test_every_alias_is_a_target():
    for name in targets.ALIASES:
        assert targets.parse(name).name in targets.names()
    with pytest.raises(SmallcnnError, match=r"no target 'raspbery-pi'; closest: raspberry-pi"):
        targets.parse("raspbery-pi")
