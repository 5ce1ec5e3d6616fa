"""From a program to a native file, and the file at work: a small hand-made network, its answers from numpy."""

import ctypes
import gc
import json
import multiprocessing
import os
import platform
import re
import shutil
import struct
import subprocess
import sys
import tempfile
import threading
from dataclasses import replace
from functools import cache
from importlib.resources import files
from pathlib import Path

import numpy as np
import pytest

import machine
from smallcnn.engines import compiled, seal
from smallcnn.errors import DataError, FileError, SmallcnnError

hl = pytest.importorskip("halide")
pytest.importorskip("ziglang")

from smallcnn.compiler import link, symbols, targets  # noqa: E402
from smallcnn.compiler.program import Buffer, Program, Step  # noqa: E402
from smallcnn.ir.types import Grid, Tensor  # noqa: E402

H, W, C, OUT = 7, 5, 3, 8
OUTPUTS = {"logits": Tensor((OUT,)), "codes": Tensor((H, W, C), "int8", Grid((0.1,), (-3,)))}
SCRATCH = 2 * (64 + 448)  # of mix: 420 bytes in blocks of 64, behind a head of 64, twice
NATIVE = files("smallcnn.compiler") / "native"
LINUX = sys.platform == "linux"
METADATA = {"labels": list("abcdefgh"), "odd": 'a "quoted" \\ ?? é 猫 \n line'}

_RNG = np.random.default_rng(0)
MATRIX = _RNG.standard_normal((C, OUT)).astype(np.float32)
BIAS = _RNG.standard_normal(OUT).astype(np.float32)
IMAGES = _RNG.integers(0, 256, (3, H, W, C), np.uint8)


def answers(images):
    """What the program below computes: squares of pixels in [0, 1], mixed by MATRIX, summed over the image."""
    return ((((images / 255.0) ** 2) @ MATRIX.astype(np.float64)) + BIAS).sum((1, 2))


def close(got, images=IMAGES):
    """Whether both outputs are right, or the logits if there are no others."""
    if isinstance(got, dict):
        np.testing.assert_array_equal(got["codes"], images.view(np.int8) // 2)
        got = got["logits"]
    np.testing.assert_allclose(got, answers(images), rtol=0, atol=35 * 20 * 2**-23)  # 35 float32 sums near 20


@cache
def kernels(target):
    """scale: uint8 -> float32; mix: squares, in memory from halide_malloc, then a 1x1 convolution; total: a sum; halve:
    uint8 -> int8, half of the byte read as int8, rounded down."""
    c, x, y, o = (hl.Var(name) for name in "cxyo")
    image, activation = hl.ImageParam(hl.UInt(8), 3, "image"), hl.ImageParam(hl.Float(32), 3, "activation")
    matrix, bias = hl.ImageParam(hl.Float(32), 2, "matrix"), hl.ImageParam(hl.Float(32), 1, "bias")
    scale, square, capped, mix, total = (hl.Func(name) for name in ("scale", "square", "capped", "mix", "total"))
    scale[c, x, y] = hl.f32(image[c, x, y]) / 255.0
    square[c, x, y] = activation[c, x, y] * activation[c, x, y]
    channel = hl.RDom([(0, C)])
    mix[o, x, y] = bias[o]
    capped[c, x, y] = hl.min(square[c, x, y], 1.0)
    mix[o, x, y] += capped[channel.x, x, y] * matrix[o, channel.x]
    square.compute_root()
    capped.compute_root()  # its memory is taken before that of `square` is given back, and given back after
    mix.bound(o, 0, OUT).vectorize(o, 4).update().vectorize(o, 4)
    plane = hl.RDom([(0, W), (0, H)])
    total[o] = 0.0
    total[o] += activation[o, plane.x, plane.y]
    halve = hl.Func("halve")
    halve[c, x, y] = hl.cast(hl.Int(8), image[c, x, y]) / 2
    return (
        compile_object("scale", scale, [image], target),
        compile_object("mix", mix, [activation, matrix, bias], target),
        compile_object("total", total, [activation], target),
        compile_object("halve", halve, [image], target),
    )


def compile_object(name, function, arguments, target):
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "kernel.o"
        function.compile_to_object(str(path), arguments, name, hl.Target(targets.parse(target).halide))
        return path.read_bytes()


def program(target="host"):
    found = targets.parse(target)
    image = Buffer("input", 0, "uint8", (C, W, H), (1, C, C * W))
    scaled = Buffer("arena", 0, "float32", (C, W, H), (1, C, C * W))
    mixed = Buffer("arena", 512, "float32", (OUT, W, H), (1, OUT, OUT * W))
    matrix = Buffer("weights", 0, "float32", (OUT, C), (1, OUT))
    bias = Buffer("weights", MATRIX.nbytes, "float32", (OUT,), (1,))
    logits = Buffer("output", 0, "float32", (OUT,), (1,))
    codes = Buffer("output", 0, "int8", (C, W, H), (1, C, C * W), output=1)
    return Program(
        name="Tiny net 2",
        target=found.name,
        features=found.features,
        objects=kernels(found.name),
        steps=(
            Step("scale", (image, scaled), 2, 1, "stem/scale"),
            Step("mix", (scaled, matrix, bias, mixed), 2, 2, "mix"),
            Step("mix", (scaled, matrix, bias, mixed), 2, 2, 'odd "label" \\ 猫'),  # finds its scratch as it was
            Step("total", (mixed, logits), None, 1, "total"),
            Step("halve", (image, codes), 2, 1, "halve"),
        ),
        arena_bytes=512 + 4 * OUT * W * H,
        scratch_bytes=SCRATCH,
        weights=MATRIX.tobytes() + BIAS.tobytes(),
        metadata=METADATA,
        input_shape=(H, W, C),
        outputs=OUTPUTS,
    )


@pytest.fixture(scope="module")
def library(tmp_path_factory):
    """The program compiled for this machine."""
    if (sys.platform, platform.machine()) not in seal._PLATFORMS:
        pytest.skip("no file for this machine can be loaded")
    path = tmp_path_factory.mktemp("native") / f"tiny{targets.host().suffixes[0]}"
    link.write(program(), path)
    return path


class TestRunning:
    @pytest.mark.parametrize("threads", [1, 2, 3, 4, 9])
    def test_equals_numpy(self, library, threads):
        net = compiled.load(library, threads)
        for _ in range(20):
            close(net.run(IMAGES))

    # rows of the largest share, when 7 rows are shared in pairs
    @pytest.mark.parametrize(("threads", "rows"), [(1, 7), (2, 4), (3, 3), (4, 2), (9, 2)])
    def test_shares(self, library, threads, rows):
        net = compiled.load(library, threads)
        net.run(IMAGES)
        assert net.scratch_bytes == 2 * (64 + -(-rows * W * C * 4 // 64) * 64)

    def test_steps_of_one_thread(self, tmp_path):
        """Before, between and after those that threads share; a slow one in front, to see who does not wait."""
        x, value, path, original = hl.Var("x"), hl.ImageParam(hl.Float(32), 1, "value"), tmp_path / "tiny.so", program()
        slow = hl.Func("slow")
        slow[x] = value[x]
        slow[x] += value[(x + hl.RDom([(0, 100_000)]).x) % 8]
        spare = Buffer("arena", original.arena_bytes, "float32", (8,), (1,))
        wait = Step("slow", (Buffer("weights", 0, "float32", (8,), (1,)), spare), None, 1, "slow")
        objects = (*original.objects, compile_object("slow", slow, [value], original.target))
        scale, _, mix, total, halve = original.steps
        for steps in (
            (wait, replace(scale, split=None), mix, total, halve),
            (scale, wait, replace(mix, split=None), replace(total, split=0), halve),
            (replace(step, split=None) for step in (scale, mix, total, halve)),
        ):
            arena = original.arena_bytes + 32
            link.write(replace(original, objects=objects, steps=tuple(steps), arena_bytes=arena), path)
            net = compiled.load(path, 3)
            for _ in range(3):
                close(net.run(IMAGES))

    def test_no_image(self, library):
        none = compiled.load(library, 1).run(IMAGES[:0])
        assert {name: array.shape for name, array in none.items()} == {"logits": (0, OUT), "codes": (0, H, W, C)}

    def test_what_is_in_the_file(self, library):
        net = compiled.load(library, 1)
        assert net.metadata == METADATA
        assert (net.input_shape, net.outputs) == ((H, W, C), OUTPUTS)
        assert net.labels == ("stem/scale", "mix", 'odd "label" \\ 猫', "total", "halve")
        assert net.scratch_bytes == 0
        net.run(IMAGES)
        assert net.scratch_bytes == SCRATCH

    def test_outputs_in_c(self, library):
        """What a program in C reads about each output, and about outputs that are not there."""
        c = ctypes.CDLL(str(library))
        c.smallcnn_output_name.restype, c.smallcnn_output_scale.restype = ctypes.c_char_p, ctypes.c_double
        shape = (ctypes.c_int * 3)()
        assert (c.smallcnn_format(), c.smallcnn_output_count()) == (2, 2)
        assert [c.smallcnn_output_name(i) for i in (-1, 0, 1, 2)] == [None, b"logits", b"codes", None]
        assert [c.smallcnn_output_shape(i, None) for i in (-1, 0, 1, 2)] == [0, 1, 3, 0]
        assert [c.smallcnn_has(name) for name in (None, b"")] == [0, 0]
        assert (c.smallcnn_output_shape(1, shape), list(shape)) == (3, [H, W, C])
        assert [c.smallcnn_output_number(i) for i in (-1, 0, 1, 2)] == [-1, 0, 2, -1]  # float32 and int8
        assert [c.smallcnn_output_scale(i) for i in (-1, 0, 1, 2)] == [0, 0, float(np.float32(0.1)), 0]
        assert [c.smallcnn_output_zero(i) for i in (-1, 0, 1, 2)] == [0, 0, -3, 0]
        net, own = ctypes.c_void_p(), ctypes.c_float(-1)
        assert c.smallcnn_create(1, ctypes.byref(net)) == 0
        assert c.smallcnn_limit(net, own, own, -1) == 2  # SMALLCNN_ARGUMENT: this is no detector
        c.smallcnn_destroy(net)

    def test_memory_grows_by_the_scratch_of_each_thread(self, library):
        one, two, three = (compiled.load(library, threads).working_bytes for threads in (1, 2, 3))
        assert three - two == two - one
        assert program().scratch_bytes <= two - one <= program().scratch_bytes + 4096
        assert program().arena_bytes + two - one <= one

    def test_times_of_steps(self, library):
        net = compiled.load(library, 2)
        times = net.time(IMAGES[0])
        assert times.shape == (5,)
        assert (times >= 0).all()
        assert times.sum() < 10**10

    @pytest.mark.parametrize(
        "batch",
        [
            IMAGES[0],
            IMAGES[:, :-1],
            IMAGES[..., :2],
            IMAGES.astype(np.float32),
            IMAGES.astype(np.int8),
            IMAGES.transpose(0, 2, 1, 3),
            np.concatenate([IMAGES, IMAGES], 3)[..., ::2],
            np.concatenate([IMAGES, IMAGES])[::2],
            IMAGES[:, :, ::-1],
        ],
        ids=[
            "one image",
            "height",
            "channels",
            "float",
            "signed",
            "transposed",
            "channel step",
            "batch step",
            "flip",
        ],
    )
    def test_refuses_other_pictures(self, library, batch):
        with pytest.raises(DataError, match="the network takes"):
            compiled.load(library, 1).run(batch)

    def test_many_callers_of_one_net(self, library):
        net = compiled.load(library, 2)
        self._together(lambda: net)

    def test_many_nets_at_once(self, library):
        self._together(lambda: compiled.load(library, 2))

    @staticmethod
    def _together(make):
        wrong = []

        def call(seed):
            images = np.random.default_rng(seed).integers(0, 256, (4, H, W, C), np.uint8)
            net, want = make(), answers(images)
            wrong.extend(i for i in range(50) if np.abs(net.run(images)["logits"] - want).max() > 1e-3)

        callers = [threading.Thread(target=call, args=(seed,)) for seed in range(4)]
        for caller in callers:
            caller.start()
        for caller in callers:
            caller.join(60)
        assert wrong == []

    @pytest.mark.skipif(not hasattr(os, "fork"), reason="no fork")
    def test_after_a_fork(self, library):
        net = compiled.load(library, 2)
        net.run(IMAGES)
        with net._context:  # as if another thread were running it
            queue = multiprocessing.get_context("fork").Queue()
            child = multiprocessing.get_context("fork").Process(target=lambda: queue.put(net.run(IMAGES)))
            child.start()
            close(queue.get(timeout=60))
            child.join(60)
        close(net.run(IMAGES))

    @pytest.mark.skipif(not LINUX, reason="reads /proc")
    def test_leaves_nothing_behind(self, tmp_path):
        path = tmp_path / "tiny.so"
        link.write(replace(program(), arena_bytes=1 << 20), path)

        def held():
            gc.collect()
            pages = int(Path("/proc/self/statm").read_text().split()[0])  # of address space
            return pages, len(list(Path("/proc/self/task").iterdir())), len(list(Path("/proc/self/fd").iterdir()))

        def once():
            close(compiled.load(path, 3).run(IMAGES))

        for _ in range(20):
            once()
        before = held()
        for _ in range(200):
            once()
        after = held()
        assert after[1:] == before[1:]
        assert after[0] - before[0] < 10 * 256  # ten arenas
        assert str(path) not in Path("/proc/self/maps").read_text()


class TestRefusing:
    @pytest.fixture
    def content(self, library):
        return library.read_bytes()

    @staticmethod
    def refused(path, content=None, threads=1):
        if content is not None:
            path.write_bytes(content)
        with pytest.raises(FileError) as caught:
            compiled.load(path, threads)
        assert str(caught.value).startswith(f"{path}: ")
        assert "\n" not in str(caught.value)
        return str(caught.value)

    def test_missing_or_foreign(self, tmp_path):
        assert "No such file" in self.refused(tmp_path / "none.so")
        assert "directory" in self.refused(tmp_path)
        assert "smallcnn compile" in self.refused(tmp_path / "empty.so", b"")
        assert "smallcnn compile" in self.refused(tmp_path / "foreign.so", Path(sys.executable).read_bytes())

    def test_cut_short_anywhere(self, tmp_path, content):
        for length in [*range(0, len(content), 97), *range(len(content) - 40, len(content))]:
            self.refused(tmp_path / "short.so", content[:length])

    def test_a_wrong_byte_anywhere(self, tmp_path, content):
        for position in [*range(0, len(content), 97), *range(len(content) - 150, len(content))]:
            damaged = bytearray(content)
            damaged[position] ^= 0x10
            self.refused(tmp_path / "damaged.so", damaged)

    def test_more_at_the_end(self, tmp_path, content):
        self.refused(tmp_path / "longer.so", content + b"\0")

    def test_another_machine(self, tmp_path):
        here = "-".join(targets.host().name.split("-")[:3])
        for target in ("arm-64-linux", "x86-64-linux-avx2", "x86-64-windows-avx2"):
            if not target.startswith(here):
                message = self.refused(tmp_path / "other.so", seal.seal(b"never loaded", target))
                assert message.endswith(f"compiled for {target}, this machine is {here}")

    def test_another_format(self, tmp_path, monkeypatch):
        with monkeypatch.context() as patch:
            patch.setattr(seal, "FORMAT", 3)
            newer = seal.seal(b"never loaded", targets.host().name)
            patch.setattr(seal, "FORMAT", 1)
            older = seal.seal(b"never loaded", targets.host().name)
        assert "written in format 3, this smallcnn reads 2" in self.refused(tmp_path / "newer.so", newer)
        message = self.refused(tmp_path / "older.so", older)
        assert message.endswith("written in format 1, this smallcnn reads 2; compile it again")

    def test_sealed_but_no_library(self, tmp_path):
        self.refused(tmp_path / "text.so", seal.seal(b"not a library", targets.host().name))

    def test_a_cpu_feature_that_is_not_there(self, tmp_path):
        path = tmp_path / "tiny.so"
        link.write(replace(program(), features=(*targets.host().features, "never")), path)
        message = self.refused(path)
        assert "never, this CPU has " in message
        if not machine.level():  # the message is about the processor itself
            assert message.endswith(f"compile it with --target {targets.host().name}")
        assert ctypes.CDLL(str(path)).smallcnn_create(1, ctypes.byref(ctypes.c_void_p())) == 1  # SMALLCNN_CPU

    @pytest.mark.skipif(platform.machine() != "x86_64" or not LINUX, reason="x86-64 Linux")
    def test_a_level_that_is_not_there(self, tmp_path):
        flags = Path("/proc/cpuinfo").read_text()
        for level, flag in (
            ("avx2", " avx2"),
            ("avxvnni", " avx_vnni"),
            ("avx512", " avx512bw"),
            ("vnni", " avx512_vbmi2"),
        ):
            path = tmp_path / f"{level}.so"
            link.write(program(f"x86-64-linux-{level}"), path)
            if flag in flags:
                close(compiled.load(path, 1).run(IMAGES))
            else:
                assert f"built for {level}, this CPU has " in self.refused(path)

    def test_threads(self, library):
        for threads in (0, -1):
            with pytest.raises(SmallcnnError, match="at least 1"):
                compiled.load(library, threads)
        with pytest.raises(SmallcnnError, match="cannot run on 5000 threads"):
            compiled.load(library, 5000)

    def test_scratch_that_was_planned_too_small(self, tmp_path):
        path = tmp_path / "tiny.so"
        link.write(replace(program(), scratch_bytes=64), path)
        net = compiled.load(path, 1)
        for _ in range(3):
            with pytest.raises(RuntimeError, match="more working memory"):
                net.run(IMAGES)
        assert net.scratch_bytes == SCRATCH  # what it would have taken


class TestReplacing:
    def test_the_same_file_twice(self, library):
        nets = [compiled.load(library, 1) for _ in range(2)]
        del nets[0]
        gc.collect()
        close(nets[0].run(IMAGES))

    def test_a_newer_file_in_its_place(self, tmp_path):
        path, original = tmp_path / "tiny.so", program()
        link.write(original, path)
        first = compiled.load(path, 2)
        for factor in (2, 3, 5):
            link.write(replace(original, weights=(np.frombuffer(original.weights, "f4") * factor).tobytes()), path)
            logits = compiled.load(path, 2).run(IMAGES)["logits"]
            np.testing.assert_allclose(logits, factor * answers(IMAGES), rtol=1e-5)
        close(first.run(IMAGES))

    def test_written_twice_is_the_same(self, tmp_path, library):
        link.write(program(), tmp_path / library.name)
        assert (tmp_path / library.name).read_bytes() == library.read_bytes()


class TestPrograms:
    def test_a_buffer_outside_its_space(self):
        step = program().steps[0]
        for buffer in (
            replace(step.buffers[1], offset=512 + 4 * OUT * W * H - 4 * C * W * H + 4),
            replace(step.buffers[1], offset=-4),
            replace(step.buffers[1], strides=(1, C, C * W + 1000)),
            replace(step.buffers[1], space="output"),
            replace(step.buffers[1], space="output", output=1),
            replace(step.buffers[1], space="input"),
            replace(step.buffers[1], space="weights", extents=(1, 1, 1)),
        ):
            with pytest.raises(ValueError, match="stem/scale"):
                replace(program(), steps=(replace(step, buffers=(step.buffers[0], buffer)),))

    def test_a_split_that_cannot_be(self):
        step = program().steps[0]
        for split, grain in ((3, 1), (-1, 1), (2, 0)):
            with pytest.raises(ValueError, match="cannot split"):
                replace(program(), steps=(replace(step, split=split, grain=grain),))

    @pytest.mark.parametrize("suffix", [".so", ".o"])
    def test_a_kernel_that_needs_a_library(self, tmp_path, suffix):
        x, value = hl.Var("x"), hl.ImageParam(hl.Float(32), 1, "value")
        wave = hl.Func("wave")
        wave[x] = hl.sin(value[x])
        step = Step("wave", (Buffer("arena", 0, "float32", (8,), (1,)),) * 2, None, 1, "wave")
        target = "x86-64-linux"
        bad = replace(program(target), objects=(compile_object("wave", wave, [value], target),), steps=(step,))
        with pytest.raises(ValueError, match="no object has sinf"):
            link.write(bad, tmp_path / f"wave{suffix}")

    def test_a_kernel_that_is_not_there(self, tmp_path):
        some = program("x86-64-linux")
        with pytest.raises(ValueError, match="no object has total_argv"):
            link.write(replace(some, objects=some.objects[:2] + some.objects[3:]), tmp_path / "some.so")


class TestTargets:
    def test_every_name_is_its_own(self):
        for name in targets.names():
            assert targets.parse(name).name == name

    @pytest.mark.parametrize(
        ("short", "long"), [("x86-64-linux", "x86-64-linux-avx2"), ("x86-64-windows", "x86-64-windows-avx2")]
    )
    def test_default_level(self, short, long):
        assert targets.parse(short) == targets.parse(long)

    @pytest.mark.parametrize("name", targets.names())
    def test_vectors_are_those_of_halide(self, name):
        target = targets.parse(name)
        assert target.vector == hl.Target(target.halide).natural_vector_size(hl.Float(32))

    def test_host_is_a_target(self):
        assert targets.parse("host").name in targets.names()

    # Flags of processors, and of virtual machines that hide some.
    @pytest.mark.skipif(platform.machine() != "x86_64" or sys.platform != "linux", reason="flags of x86, as of Linux")
    @pytest.mark.parametrize(
        ("more", "level"),
        [
            ("", "avx2"),  # a Zen 4 whose hypervisor hides AVX-512
            ("avx_vnni", "avxvnni"),
            ("avx512f avx512dq avx512cd avx512bw avx512vl", "avx512"),
            ("avx512f avx512dq avx512cd avx512bw avx512vl avx512_vnni", "avx512"),  # Cascade Lake: no VBMI
            ("avx512f avx512dq avx512cd avx512bw avx512vl avx512_vnni avx512vbmi avx512_vbmi2", "vnni"),
            ("-avx2", "sse41"),
            ("-movbe", "sse41"),
        ],
    )
    def test_host_has_the_level_of_its_flags(self, more, level, monkeypatch):
        plain = "ssse3 fma cx16 sse4_1 sse4_2 movbe popcnt avx f16c abm bmi1 avx2 bmi2 sha_ni vaes"
        flags = {*plain.split(), *more.split()} - {more[1:]}
        monkeypatch.setattr(targets, "cpu_flags", lambda: frozenset(flags))
        assert targets.host().level == level

    def test_a_level_that_is_here_is_one_that_the_file_finds(self, library):
        """native/cpu.h asks the processor itself."""
        c = ctypes.CDLL(str(library))
        for name in targets.names():
            target = targets.parse(name)
            if target.platform == targets.host().platform:
                found = all(c.smallcnn_has(feature.encode()) for feature in target.features)
                assert found == targets.runs_here(target), name

    @pytest.mark.parametrize("name", ["", "x86-64", "x86-64-linux-avx1024", "arm-64-linux-avx2", "wasm-avx2", "HOST"])
    def test_unknown(self, name):
        with pytest.raises(SmallcnnError, match="no target"):
            targets.parse(name)

    def test_kinds_of_files(self, tmp_path):
        with pytest.raises(SmallcnnError, match=r"a file for x86-64-linux-avx2 must end in \.so or \.o"):
            link.write(replace(program("host"), target="x86-64-linux-avx2"), tmp_path / "tiny.dll")

    def test_a_place_that_cannot_be_written(self, tmp_path):
        with pytest.raises(FileError, match="cannot write"):
            link.write(program("x86-64-linux"), tmp_path / "none" / "tiny.so")


def run(*command, **options):
    """stdout of a command that must succeed."""
    done = subprocess.run([str(word) for word in command], capture_output=True, check=False, **options, timeout=100)
    assert done.returncode == 0, done
    return done.stdout


def c_compiler():
    return ["cc"] if shutil.which("cc") else [sys.executable, "-m", "ziglang", "cc"]


def example_prints(image):
    """Of both outputs, where the largest is, and the real number it stands for."""
    logits, codes = answers(image[None])[0], image.view(np.int8) // 2
    largest = 0.1 * (int(codes.max()) + 3)
    return f"logits: {logits.argmax()}, {logits.max():.4f}\ncodes: {codes.argmax()}, {largest:.4f}\n".encode()


class TestFromC:
    @pytest.fixture
    def picture(self, tmp_path):
        path = tmp_path / "picture.rgb"
        path.write_bytes(IMAGES[0].tobytes())
        return path

    @pytest.fixture
    def example(self, tmp_path):
        for name in ("example.c", "smallcnn.h"):
            (tmp_path / name).write_text((NATIVE / name).read_text())
        return tmp_path / "example.c"

    @pytest.mark.skipif(not LINUX, reason="links a .so")
    def test_example(self, tmp_path, library, example, picture):
        shutil.copy(library, tmp_path / "network.so")
        run(*c_compiler(), "-Wall", "example.c", "./network.so", "-o", "example", cwd=tmp_path)
        assert run("./example", picture, cwd=tmp_path) == example_prints(IMAGES[0])

    @pytest.mark.skipif(not LINUX, reason="links ELF objects")
    def test_example_with_an_object(self, tmp_path, example, picture):
        link.write(program(), tmp_path / "tiny.o", prefix="smallcnn")
        run(*c_compiler(), "-Wall", "example.c", "tiny.o", "-pthread", "-o", "example", cwd=tmp_path)
        assert run("./example", picture, cwd=tmp_path) == example_prints(IMAGES[0])

    def test_header_is_c_and_cpp(self, tmp_path):
        (tmp_path / "smallcnn.h").write_text(link.header())
        (tmp_path / "use.c").write_text('#include "smallcnn.h"\nint use(void) { return smallcnn_format(); }\n')
        for language in (("-std=c99",), ("-x", "c++", "-std=c++11")):
            flags = (*language, "-Wall", "-Wextra", "-pedantic", "-Werror")
            run(*c_compiler(), *flags, "-c", "use.c", "-o", "use.o", cwd=tmp_path)

    @pytest.mark.skipif(not LINUX, reason="links ELF objects")
    def test_two_networks_in_one_program(self, tmp_path):
        original = program()
        double = (np.frombuffer(original.weights, "f4") * 2).tobytes()
        link.write(original, tmp_path / "One.o")
        link.write(replace(original, weights=double), tmp_path / "2 Two.o")
        (tmp_path / "main.c").write_text(MAIN_OF_TWO)
        run(*c_compiler(), "-Wall", "main.c", "One.o", "2 Two.o", "-pthread", "-o", "main", cwd=tmp_path)
        got = np.array(run("./main", cwd=tmp_path).split(), float).reshape(2, OUT)
        want = answers(np.full((1, H, W, C), 200))[0]
        np.testing.assert_allclose(got, [want, 2 * want], rtol=1e-5)

    @pytest.mark.skipif(not LINUX, reason="links ELF objects")
    def test_the_callers_floating_point_settings(self, tmp_path):
        """MXCSR or FPCR after a run, as the program had set it, on one thread and on two."""
        link.write(program(), tmp_path / "tiny.o")
        (tmp_path / "main.c").write_text(MAIN_OF_SETTINGS)
        run(*c_compiler(), "-Wall", "main.c", "tiny.o", "-pthread", "-o", "main", cwd=tmp_path)
        run("./main", cwd=tmp_path)

    @pytest.mark.skipif(not LINUX or not shutil.which("nm"), reason="needs nm")
    def test_names_in_the_file(self, library):
        declared = set(re.findall(r"^\w.*?\b(smallcnn_\w+)\(", link.header(), re.MULTILINE))
        lines = [line.split() for line in run("nm", "-D", library).decode().splitlines()]
        assert {line[-1] for line in lines if line[-2] != "U"} == declared
        asked = {line[-1] for line in lines if line[-2] == "U"}
        assert asked <= LIBC, asked - LIBC
        assert b".so." not in library.read_bytes()  # it names no other library


LIBC = {"posix_memalign", "free", "memcpy", "memset", "clock_gettime", "sched_yield", "syscall", "getauxval"}
LIBC |= {f"pthread_{name}" for name in ("create", "join", "attr_init", "attr_destroy", "attr_setstacksize")}

MAIN_OF_SETTINGS = """
#include "tiny.h"

#ifdef __x86_64__
#include <xmmintrin.h>
static uint64_t get(void) { return _mm_getcsr(); }
static void set(uint64_t setting) { _mm_setcsr((unsigned)setting); }
static const uint64_t SETTINGS[] = {0x1f80, 0x7f80, 0x9fc0}; /* the default, towards zero, denormals as zero */
#else
static uint64_t get(void) {
    uint64_t setting;
    __asm__ volatile("mrs %0, fpcr" : "=r"(setting));
    return setting;
}
static void set(uint64_t setting) { __asm__ volatile("msr fpcr, %0" : : "r"(setting)); }
static const uint64_t SETTINGS[] = {0, 3 << 22, 1 << 24};
#endif

int main(void) {
    static uint8_t image[7 * 5 * 3];
    static uint64_t times[16];
    float logits[8];
    int8_t codes[7 * 5 * 3];
    void *const outputs[] = {logits, codes};
    for (int threads = 1; threads <= 2; threads++) {
        tiny_net *net;
        if (tiny_create(threads, &net)) return 100;
        for (int i = 0; i < 3; i++) {
            set(SETTINGS[i]);
            int error = tiny_run(net, image, outputs);
            uint64_t after = get();
            error |= tiny_run_timed(net, image, outputs, times);
            uint64_t after_timed = get();
            set(SETTINGS[0]);
            if (error || after != SETTINGS[i] || after_timed != SETTINGS[i]) return 1 + i;
        }
        tiny_destroy(net);
    }
    return 0;
}
"""

MAIN_OF_TWO = """
#include <stdio.h>
#include <string.h>
#include "One.h"
#include "2 Two.h"

int main(void) {
    uint8_t image[7 * 5 * 3];
    float logits[2][8];
    int8_t codes[7 * 5 * 3];
    one_net *one;
    net_2_two_net *two;
    memset(image, 200, sizeof image);
    if (one_create(2, &one) || net_2_two_create(2, &two)) return ONE_THREAD;
    void *const outputs[] = {logits[0], codes}, *const others[] = {logits[1], codes};
    if (one_run(one, image, outputs) || net_2_two_run(two, image, others)) return NET_2_TWO_KERNEL;
    one_destroy(one);
    net_2_two_destroy(two);
    for (int i = 0; i < 16; i++) printf("%.7g ", logits[i / 8][i % 8]);
    return 0;
}
"""

MAIN_OF_FIRMWARE = """
#include <stdio.h>
#include "tiny.h"

static uint8_t memory[1 << 16];

int main(void) {
    uint8_t image[7 * 5 * 3];
    float logits[8];
    int8_t codes[7 * 5 * 3];
    void *const outputs[] = {logits, codes}, *const missing[] = {logits, NULL};
    tiny_net *net;
    if (fread(image, 1, sizeof image, stdin) != sizeof image) return 100;
    if (tiny_create_in(memory + 1, tiny_memory(1) - 1, &net) != TINY_ARGUMENT) return 101;
    if (tiny_create_in(memory + 1, tiny_memory(1), &net)) return 102;
    if (tiny_run(net, image, outputs)) return 103;
    if (tiny_run(net, image, NULL) != TINY_ARGUMENT || tiny_run(net, image, missing) != TINY_ARGUMENT) return 104;
    for (int i = 0; i < 8; i++) printf("%.7g ", logits[i]);
    tiny_destroy(net);
    return 0;
}
"""

IN_NODE = """
const fs = require("fs");
const module = new WebAssembly.Module(fs.readFileSync("tiny.wasm"));
const net = new WebAssembly.Instance(module).exports;
const size = net.smallcnn_height() * net.smallcnn_width() * net.smallcnn_channels();
const bytes = net.smallcnn_memory(1), handle = net.__heap_base.value;
const places = handle + 4, logits = handle + 12, codes = logits + 4 * 8, image = codes + size, memory = image + size;
const missing = memory + bytes - net.memory.buffer.byteLength;
if (missing > 0) net.memory.grow(Math.ceil(missing / 65536));
new Uint8Array(net.memory.buffer, image, size).set(fs.readFileSync(0));
let error = net.smallcnn_create_in(memory, bytes, handle);
const context = new Int32Array(net.memory.buffer, handle, 1)[0];
new Int32Array(net.memory.buffer, places, 2).set([logits, codes]);
error = error || net.smallcnn_run(context, image, places);
console.log(error, WebAssembly.Module.imports(module).length, ...new Float32Array(net.memory.buffer, logits, 8));
"""


ARM_COMPILER = "aarch64-linux-gnu-gcc"
needs_arm = pytest.mark.skipif(
    not (shutil.which("qemu-aarch64") and shutil.which(ARM_COMPILER)), reason=f"needs qemu-aarch64 and {ARM_COMPILER}"
)


class TestOtherMachines:
    @pytest.mark.skipif(not shutil.which("node"), reason="needs node")
    def test_wasm(self, tmp_path):
        link.write(program("wasm"), tmp_path / "tiny.wasm")
        error, imports, *logits = run("node", "-e", IN_NODE, input=IMAGES[0].tobytes(), cwd=tmp_path).split()
        assert (int(error), int(imports)) == (0, 0)
        close(np.array([logits], float), IMAGES[:1])

    @needs_arm
    @pytest.mark.parametrize("target", ["arm-64-linux", "arm-64-linux-dotprod", "arm-64-noos"])
    def test_arm(self, tmp_path, target):
        link.write(program(target), tmp_path / "tiny.o", prefix="tiny")
        main = MAIN_OF_FIRMWARE
        if "linux" in target:
            main = main.replace("tiny_create_in(memory + 1, tiny_memory(1), &net)", "tiny_create(3, &net)")
        (tmp_path / "main.c").write_text(main)
        run(ARM_COMPILER, "-static", "main.c", "tiny.o", "-o", "main", cwd=tmp_path)
        logits = run("qemu-aarch64", "./main", input=IMAGES[0].tobytes(), cwd=tmp_path).split()
        close(np.array([logits], float), IMAGES[:1])

    @needs_arm
    def test_arm_without_the_feature(self, tmp_path):
        link.write(program("arm-64-linux-dotprod"), tmp_path / "tiny.o", prefix="tiny")
        (tmp_path / "main.c").write_text(
            '#include <stdio.h>\n#include "tiny.h"\nint main(void) { return !printf("%d", tiny_supported()); }\n'
        )
        run(ARM_COMPILER, "-static", "main.c", "tiny.o", "-o", "main", cwd=tmp_path)
        for cpu, answer in (("cortex-a57", b"0"), ("cortex-a76", b"1")):  # ARMv8.0, ARMv8.2 with dot product
            assert run("qemu-aarch64", "-cpu", cpu, "./main", cwd=tmp_path) == answer

    def test_dll(self, tmp_path):
        link.write(program("x86-64-windows"), tmp_path / "tiny.dll")
        exports, imports = portable_executable((tmp_path / "tiny.dll").read_bytes())
        assert exports == set(re.findall(r"^\w.*?\b(smallcnn_\w+)\(", link.header(), re.MULTILINE))
        assert imports == {"kernel32.dll"}

    def test_android(self, tmp_path):
        link.write(program("arm-64-android"), tmp_path / "tiny.so")
        content = (tmp_path / "tiny.so").read_bytes()
        assert content[:20] == b"\x7fELF\2\1\1" + bytes(9) + struct.pack("<HH", 3, 183)  # shared, AArch64
        assert b"libc.so\0" in content

    def test_macos(self, tmp_path):
        link.write(program("arm-64-osx"), tmp_path / "tiny.o")
        content = (tmp_path / "tiny.o").read_bytes()
        assert struct.unpack_from("<4I", content) == (0xFEEDFACF, 0x0100000C, 0, 1)  # 64 bits, ARM64, all, object
        names = symbols.external(content)
        offered = {name for name, here in names.items() if here}
        assert {"tiny_run", "tiny_create", "tiny_metadata"} <= offered
        assert all(name.startswith("tiny_") for name in offered)
        assert {name for name, here in names.items() if not here} <= LIBC | DARWIN


DARWIN = {"bzero", "sysctlbyname"}
DARWIN |= {f"pthread_mutex_{name}" for name in ("init", "lock", "unlock", "destroy")}
DARWIN |= {f"pthread_cond_{name}" for name in ("init", "wait", "broadcast", "destroy")}


def portable_executable(content):
    """Names a 64-bit DLL exports, and the DLLs it needs; see Microsoft's PE format."""
    (header,) = struct.unpack_from("<I", content, 0x3C)
    assert struct.unpack_from("<4sHH", content, header)[:2] == (b"PE\0\0", 0x8664)
    count, optional_size = struct.unpack_from("<H12xH", content, header + 6)
    optional = header + 24
    tables = struct.unpack_from("<4I", content, optional + 112)
    sections = [struct.unpack_from("<4I", content, optional + optional_size + 40 * i + 8) for i in range(count)]

    def at(address):
        return next(address - start + raw for size, start, _, raw in sections if start <= address < start + size)

    def text(address):
        return content[at(address) : content.index(b"\0", at(address))].decode()

    exported, names = struct.unpack_from("<I4xI", content, at(tables[0]) + 24)
    exports = {text(name) for name in struct.unpack_from(f"<{exported}I", content, at(names))}
    imports = set()
    entry = at(tables[2])
    while (name := struct.unpack_from("<I", content, entry + 12)[0]) != 0:
        imports.add(text(name))
        entry += 20
    return exports, imports


def test_size(tmp_path):
    """MobileNet v1 0.25 has 470,000 parameters and 30 layers, and is to fit in 2.2 MB."""
    original = program("x86-64-linux")
    weights = original.weights + np.random.default_rng(0).bytes(4 * 470_000)
    objects, steps = original.objects[:3], original.steps[:4] * 10
    link.write(replace(original, objects=objects, weights=weights, steps=steps), tmp_path / "large.so")
    assert (tmp_path / "large.so").stat().st_size < len(weights) + 20_000


def test_metadata_is_json_in_c(library):
    """What a program in C reads is what the loader reads."""
    function = ctypes.CDLL(str(library)).smallcnn_metadata
    function.restype = ctypes.c_char_p
    assert json.loads(function()) == METADATA
