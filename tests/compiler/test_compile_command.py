"""`smallcnn compile`: what it prints, writes and refuses. What it makes is tested in test_compiled_engine.py."""

import json
import re
import subprocess
import sys
from importlib.util import find_spec

import click
import numpy as np
import onnx as onnx_package
import pytest

from artifacts import artifact
from networks import every_op
from smallcnn import onnx, runtime, zoo
from smallcnn.cli.main import root
from smallcnn.compiler import compiling, targets
from smallcnn.compiler.explain import peak_activation_bytes
from smallcnn.cost.profile import profile
from smallcnn.engines import compiled
from smallcnn.errors import FileError
from smallcnn.model import metadata
from smallcnn.model.kinds import read
from smallcnn.model.store import save

INSTALLED = find_spec("halide") is not None and find_spec("ziglang") is not None
COMPILER = pytest.mark.skipif(not INSTALLED, reason="needs the 'compile' extra")


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    folder = tmp_path_factory.mktemp("models")
    save(artifact(), folder / "m.safetensors")
    save(artifact(every_op(), trained=False), folder / "other.safetensors")
    onnx.export(artifact(), folder / "m.onnx")
    foreign = onnx_package.load(folder / "m.onnx")
    del foreign.metadata_props[:]
    onnx_package.save(foreign, folder / "foreign.onnx")
    return folder


# --- with the compiler -------------------------------------------------------------------------------------------


@COMPILER
@pytest.mark.parametrize("name", ["m.safetensors", "m.onnx", "foreign.onnx"])
def test_every_kind_of_model_file_is_compiled(folder, smallcnn, tmp_path, name):
    out = tmp_path / "m.so"
    code, printed, said = smallcnn("compile", folder / name, "--out", out)
    assert (code, printed) == (0, f"{out}\n")
    assert f"for {targets.host().name}; off by" in said
    net = runtime.open(out)
    pictures = np.random.default_rng(0).integers(0, 256, (2, 8, 8, 3), np.uint8)
    expected = runtime.open(folder / "m.onnx").logits(pictures)
    np.testing.assert_allclose(net.logits(pictures), expected, rtol=0, atol=1e-5 * np.abs(expected).max())
    assert net.mult_adds == 2316


@COMPILER
def test_explain(folder, smallcnn, tmp_path):
    code, printed, said = smallcnn("compile", folder / "other.safetensors", "--out", tmp_path / "o.so", "--explain")
    assert code == 0
    assert "untrained" in said
    for word in ("kernel", "tile", "rows", "parts", "scratch", "arena", "per thread", "from the cache", "GFLOP/s"):
        assert word in printed
    assert printed.splitlines()[-1] == str(tmp_path / "o.so")


@COMPILER
def test_json_holds_the_plan_its_totals_and_the_times(folder, smallcnn, tmp_path):
    out = tmp_path / "o.so"
    smallcnn("compile", folder / "other.safetensors", "--out", tmp_path / "first.o")
    code, printed, _ = smallcnn("compile", folder / "other.safetensors", "--out", out, "--json")
    assert code == 0
    found = json.loads(printed)
    steps, times = found["steps"], found["times"]
    assert (found["file"], found["file_bytes"], found["target"]) == (str(out), out.stat().st_size, targets.host().name)
    assert found["error"] < 1e-4
    assert sum(step["mult_adds"] for step in steps) == profile(every_op()).mult_adds
    assert [step["nodes"] for step in steps] == [step["nodes"] for step in times]
    named = {node for step in steps for node in step["nodes"]}
    assert {"stem.conv", "pool.max", "lrn", "many.conv", "se.scale", "classifier"} <= named
    assert found["cached"] == found["kernels"] <= len(steps)
    assert found["weight_bytes"] >= profile(every_op()).weight_bytes
    assert found["scratch_bytes_per_thread"] >= max(step["scratch_bytes"] for step in steps)
    for step in steps:
        assert step["parts"] >= 1
        assert all(pixels >= 1 and vectors >= 1 for pixels, vectors in step["tiles"])


@COMPILER
def test_the_prefix_begins_every_name(folder, smallcnn, refused, tmp_path):
    out = tmp_path / "m.o"
    assert smallcnn("compile", folder / "m.onnx", "--out", out, "--prefix", "My_Net")[0] == 0
    assert "int My_Net_run(" in (tmp_path / "m.h").read_text()
    out.unlink()
    assert "an argument is empty" in refused("compile", folder / "m.onnx", "--out", out, "--prefix", "")
    for prefix in ("2net", "my-net", "a b", "a__b", "ü"):
        assert f"{prefix!r} cannot begin names in C" in refused(
            "compile", folder / "m.onnx", "--out", out, "--prefix", prefix
        )
    assert "a prefix applies only to .o files" in refused(
        "compile", folder / "m.onnx", "--out", out.with_suffix(".so"), "--prefix", "x"
    )
    assert not out.exists()


@COMPILER
def test_an_object_comes_with_its_header_and_a_foreign_file_is_not_run(folder, smallcnn, tmp_path):
    code, _, said = smallcnn("compile", folder / "m.onnx", "--out", tmp_path / "m.o", "--target", "arm-64-linux")
    assert code == 0
    assert f"C header {tmp_path / 'm.h'}" in said
    assert "not run: link it into a program" in said
    assert "int m_run(" in (tmp_path / "m.h").read_text()
    code, printed, _ = smallcnn(
        "compile", folder / "m.onnx", "--out", tmp_path / "m.wasm", "--target", "wasm", "--json"
    )
    assert (code, json.loads(printed)["times"], json.loads(printed)["error"]) == (0, [], None)


@COMPILER
@pytest.mark.parametrize(
    ("words", "seconds"),
    [(["--tune"], 60), (["--tune", "2.5"], 2.5), (["--tune=3"], 3), (["--tune", "1e1"], 10), ([], 0)],
    ids=["alone", "2.5", "=3", "1e1", "none"],
)
@pytest.mark.parametrize("first", [True, False], ids=["before FILE", "after FILE"])
def test_the_budget_of_tuning_may_be_left_out(folder, smallcnn, tmp_path, monkeypatch, words, seconds, first):
    """--tune was a flag at first."""
    asked = []

    def compile_file(*args, tune, **options):
        asked.append(tune)
        raise FileError("enough")

    monkeypatch.setattr(compiling, "compile_file", compile_file)
    rest = [folder / "m.safetensors", "--out", tmp_path / "m.so"]
    smallcnn("compile", *(words + rest if first else rest + words))
    assert asked == [seconds]


@pytest.mark.parametrize("compact", [True, False])
def test_weights_are_kept_as_they_are_if_asked(folder, smallcnn, tmp_path, monkeypatch, compact):
    asked = []

    def compile_file(*args, compact, **options):
        asked.append(compact)
        raise FileError("enough")

    monkeypatch.setattr(compiling, "compile_file", compile_file)
    smallcnn("compile", folder / "m.safetensors", "--out", tmp_path / "m.so", *["--compact"] * compact)
    assert asked == [compact]


@COMPILER
def test_what_was_tuned_is_said_and_kept(folder, smallcnn, tmp_path, monkeypatch):
    monkeypatch.setenv("SMALLCNN_CACHE", str(tmp_path / "cache"))
    command = ("compile", folder / "m.safetensors", "--out", tmp_path / "m.so", "--threads", "1")
    assert json.loads(smallcnn(*command, "--json")[1])["tuning"] is None
    kernels = 0
    for _ in range(10):  # four seconds may be too few for one kernel; the command continues where it stopped
        code, _, said = smallcnn(*command, "--tune", "4")
        assert code == 0
        found = re.search(r"(\d+) of (\d+) kernels tuned, (\d+) of (\d+) forms", said)
        kernels, of, forms, space = map(int, found.groups()) if found else (0, 0, 0, 0)
        if kernels:
            break
    assert 1 <= kernels <= of
    assert kernels < forms <= space
    code, printed, said = smallcnn(*command, "--json")
    assert f"{kernels} of {of} kernels tuned on this processor before: " in said
    tuning = json.loads(printed)["tuning"]
    assert (len(tuning["kernels"]), tuning["of"], tuning["seconds"]) == (kernels, of, None)
    stored = metadata.parse(compiled.load(tmp_path / "m.so").metadata).tuning
    assert stored.to_json() | {"kernels": list(stored.kernels)} == tuning
    assert "tuned on this processor" not in smallcnn(*command[:-1], "2")[2]


@COMPILER
def test_mistakes(folder, refused, tmp_path):
    model = folder / "m.safetensors"
    assert "must end in .dll" in refused("compile", model, "--out", tmp_path / "m.so", "--target", "x86-64-windows")
    assert "must end in .wasm" in refused("compile", model, "--out", tmp_path / "m.so", "--target", "wasm")
    assert "must end in .so or .o" in refused("compile", model, "--out", tmp_path / "m", "--target", "x86-64-linux")
    assert "no target 'arm64'; closest: arm-64" in refused("compile", model, "--out", "m.so", "--target", "arm64")
    tuned = ("compile", model, "--out", tmp_path / "m.wasm", "--target", "wasm", "--tune")
    assert "kernels for wasm cannot be timed on this machine" in refused(*tuned)
    assert "not in the range x>0" in refused("compile", model, "--out", tmp_path / "m.so", "--tune", "-1")
    assert "cannot write" in refused("compile", model, "--out", tmp_path / "none" / "m.so", "--target", "x86-64-linux")
    assert not list(tmp_path.iterdir())


# --- without it --------------------------------------------------------------------------------------------------


def test_files_that_cannot_be_compiled(refused, folder, tmp_path):
    (tmp_path / "x.so").write_bytes(b"")
    (tmp_path / "run").mkdir()
    (tmp_path / "run" / "best.safetensors").write_bytes(b"")
    for file, says in {
        "x.so": "compiled; its network cannot be read back",
        "absent.onnx": "x",
        "absent.pt": "no such file",
        "run": f"its model is {tmp_path / 'run' / 'best.safetensors'}",
    }.items():
        line = refused("compile", tmp_path / file, "--out", tmp_path / "m.so")
        assert file in line
        assert says in line
    with pytest.raises(FileError, match=r"model files end in \.safetensors or \.onnx"):
        read(__file__)


def test_both_kinds_are_read(folder):
    stored, converted = read(folder / "m.safetensors"), read(folder / "m.onnx")
    assert profile(stored.graph).mult_adds == profile(converted.graph).mult_adds == 2316
    assert stored.labels == converted.labels


def test_without_the_extra_it_is_named(folder, tmp_path):
    code = f"""
import sys
sys.modules.update(dict.fromkeys(["halide", "ziglang"]))
from smallcnn.cli.main import main
main(["compile", {str(folder / "m.onnx")!r}, "--out", {str(tmp_path / "m.so")!r}])
"""
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False, timeout=100)
    assert done.returncode == 2
    assert done.stderr.splitlines() == [
        "smallcnn: compiling needs the 'compile' extra: pip install 'smallcnn[compile]'"
    ]


def test_help_lists_the_targets(smallcnn):
    words = " ".join(smallcnn("compile", "--help")[1].split()).replace("- ", "-")  # a name may be cut at a hyphen
    for name in ("host", *targets.names()):
        assert name in words
    assert isinstance(root.get_command(click.Context(root), "compile"), click.Command)


# --- what the plan needs, without Halide ---------------------------------------------------------------------------


def test_the_fused_peak_of_mobilenet_v2():
    """The expanded maps, 96 channels at 112x112 among them, never exist as a whole: what remains is at least the
    largest input and output of a block, 16 channels at 112x112 and 24 at 56x56."""
    graph = zoo.mobilenet_v2()
    fused = peak_activation_bytes(graph)
    between_blocks = 4 * (112 * 112 * 16 + 56 * 56 * 24)
    assert between_blocks <= fused < 4 * profile(graph).peak_activation_elements / 2


def test_a_plan_needs_no_halide():
    code = """
import sys
sys.modules.update(dict.fromkeys(["halide", "ziglang", "onnx", "onnxruntime"]))
from smallcnn.cli.main import main
main(["cost", "mobilenet_v2", "--json"])
"""
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False, timeout=100)
    assert done.returncode == 0, done.stderr
    assert json.loads(done.stdout)["peak_activation_bytes_fused"] == peak_activation_bytes(zoo.mobilenet_v2())


@COMPILER
def test_names_in_upper_case(smallcnn, folder, tmp_path):
    upper = tmp_path / "M.SAFETENSORS"
    code, out, _ = smallcnn("import", folder / "foreign.onnx", "--out", upper)
    assert (code, out) == (0, f"{upper}\n")
    for name, target in (("A.SO", "host"), ("B.O", "host"), ("C.DLL", "windows")):
        code, out, _ = smallcnn("compile", upper, "--out", tmp_path / name, "--target", target)
        assert (code, out) == (0, f"{tmp_path / name}\n")
    assert (tmp_path / "B.h").exists()
    image = np.zeros((8, 8, 3), np.uint8)
    answers = [runtime.open(path).classify_prepared(np.resize(image, runtime.open(path).input_shape))
               for path in (upper, tmp_path / "A.SO")]  # fmt: skip
    assert answers[0].label == answers[1].label
