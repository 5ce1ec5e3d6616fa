"""A compiled file in everything that takes a model file. The compiler itself is tested in test_compiler_*.py."""

import io
import json
import struct
import subprocess
import sys
from dataclasses import replace

import numpy as np
import pytest

import smallcnn
from artifacts import LABELS, artifact, colour_photos
from networks import every_op
from smallcnn import onnx, runtime
from smallcnn.bench import integer_peak, peak
from smallcnn.bench import steps as by_layer_module
from smallcnn.bench.bench import bench, candidates, take_turns
from smallcnn.bench.steps import by_layer
from smallcnn.compiler import link, targets
from smallcnn.compiler.compiling import compile_file
from smallcnn.engines import compiled, seal
from smallcnn.errors import FileError, SmallcnnError
from smallcnn.evaluate import evaluate
from smallcnn.ir.types import Tensor
from smallcnn.model.probe import TOLERANCE
from smallcnn.model.store import save
from smallcnn.reference import floating as reference

pytest.importorskip("halide")
pytest.importorskip("ziglang")


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    folder = tmp_path_factory.mktemp("models")
    for name, model in (("m", artifact(note="hello")), ("other", artifact(every_op()))):
        save(model, folder / f"{name}.safetensors")
        onnx.export(model, folder / f"{name}.onnx")
        compile_file(model, folder / f"{name}.so", workers=1)
    colour_photos(folder / "photos")
    return folder


def test_it_is_the_same_network(folder):
    net = smallcnn.open(folder / "m.so", threads=1)
    batch = np.random.default_rng(0).integers(0, 256, (3, 8, 8, 3), np.uint8)
    model = artifact()
    expected = reference.answer(model.graph, model.weights, model.preprocessing.normalise(batch))
    np.testing.assert_allclose(net.logits(batch), expected, rtol=0, atol=1e-5 * np.abs(expected).max())  # float32 sums
    assert (net.labels, net.facts, net.name, net.mult_adds) == (LABELS, {"note": "hello"}, "tiny", 2316)
    assert (net.engine, net.preprocessing) == ("compiled", model.preprocessing)
    assert net.verify() < TOLERANCE


def test_predictions_and_evaluations_are_those_of_the_other_files(folder):
    picture = next((folder / "photos").glob("*/*.png"))
    (here,), (there,) = (runtime.open(folder / name).classify([picture]) for name in ("m.so", "m.onnx"))
    assert here.label == there.label
    assert here.probability == pytest.approx(there.probability, abs=1e-5)
    here, there = (evaluate(runtime.open(folder / name), folder / "photos") for name in ("m.so", "m.onnx"))
    np.testing.assert_array_equal(here.metrics.confusion, there.metrics.confusion)


def test_the_commands_take_it(folder, smallcnn):
    picture = next((folder / "photos").glob("*/*.png"))
    code, out, _ = smallcnn("predict", folder / "m.so", picture, "--json")
    assert (code, json.loads(out)[0]["image"]) == (0, str(picture))
    code, out, _ = smallcnn("evaluate", folder / "m.so", "--data", folder / "photos", "--json")
    assert (code, json.loads(out)["engine"], json.loads(out)["images"]) == (0, "compiled", 24)


def test_no_other_engine_runs_it(folder, refused):
    with pytest.raises(SmallcnnError, match=r"'onnxruntime' does not run \.so files; use compiled"):
        runtime.open(folder / "m.so", engine="onnxruntime")
    assert "does not run .so files" in refused("predict", folder / "m.so", "a.jpg", "--engine", "torch")


def test_damaged_and_missing_files_are_one_line(folder, tmp_path):
    whole = (folder / "m.so").read_bytes()
    for name, content in {"cut": whole[:-9], "empty": b"", "changed": whole[:5000] + b"x" + whole[5001:]}.items():
        (tmp_path / f"{name}.so").write_bytes(content)
        with pytest.raises(FileError, match=f"{name}.so") as caught:
            runtime.open(tmp_path / f"{name}.so")
        assert "\n" not in str(caught.value)
    with pytest.raises(FileError, match=r"absent\.so"):
        runtime.open(tmp_path / "absent.so")


@pytest.mark.parametrize(
    "facts", [b"", b"{", b"[1]", b"{}", b'{"format": 2}', b'{"format": 1, "target": "old"}'], ids=repr
)
def test_a_sealed_file_that_does_not_say_what_it_is(folder, tmp_path, facts):
    content = (folder / "m.so").read_bytes() + facts + struct.pack("<I", len(facts))
    checksum = seal._checksum(io.BytesIO(content), len(content))
    (tmp_path / "m.so").write_bytes(content + struct.pack("<I", checksum) + b"smallcnn")
    with pytest.raises(FileError, match=r"do not name its format and target|written in format 1, this"):
        runtime.open(tmp_path / "m.so")


def test_it_runs_without_what_other_files_need(folder):
    """numpy, and PIL to open images: nothing that takes time to import."""
    code = f"""
import sys, numpy
sys.modules.update(dict.fromkeys(["onnx", "onnxruntime", "safetensors", "torch", "halide", "ziglang", "rich", "click"]))
import smallcnn
net = smallcnn.open({str(folder / "m.so")!r}, threads=1)
net.logits(numpy.zeros((1, 8, 8, 3), numpy.uint8))
heavy = "smallcnn.ir.graph smallcnn.cost.profile smallcnn.reference.floating smallcnn.model.model"
early = set(heavy.split()) & set(sys.modules)
assert net.verify() < 1e-4
sys.exit(", ".join(early) or 0)
"""
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False, timeout=100)
    assert done.returncode == 0, done.stderr


# --- bench -------------------------------------------------------------------------------------------------------


def pairs(chosen):
    return [(one.file.name, one.engine) for one in chosen]


def test_each_file_is_timed_in_what_runs_it(folder):
    files = [folder / "m.safetensors", folder / "m.onnx", folder / "m.so"]
    natural, _ = candidates(files)
    assert pairs(natural) == [("m.safetensors", "onnxruntime"), ("m.onnx", "onnxruntime"), ("m.so", "compiled")]
    possible, impossible = candidates(files[1:], ["torch", "onnxruntime", "compiled"])
    assert pairs(possible) == [("m.onnx", "onnxruntime"), ("m.onnx", "compiled"), ("m.so", "compiled")]
    assert pairs(impossible) == [("m.onnx", "torch"), ("m.so", "torch"), ("m.so", "onnxruntime")]
    with pytest.raises(SmallcnnError, match="'torch' does not run"):
        candidates(files[1:], ["torch"])


def test_rows_compare_a_model_with_its_peers(folder):
    files = [folder / name for name in ("m.so", "m.onnx", "other.so", "other.onnx")]
    rows = bench(files, seconds=0.1)
    by_file = {row.file.rpartition("/")[2]: row for row in rows}
    for name in ("m", "other"):
        ours, peer = by_file[f"{name}.so"], by_file[f"{name}.onnx"]
        assert (ours.engine, ours.model, ours.mult_adds) == ("compiled", peer.model, peer.mult_adds)
        assert ours.vs_best_peer == pytest.approx(peer.median_ms / ours.median_ms)
        assert peer.vs_best_peer == 1
    both = by_file["m.so"].vs_best_peer * by_file["other.so"].vs_best_peer
    for row in rows:
        assert row.mean_vs_best_peer == pytest.approx(both**0.5)
        assert row.share_of_peak == pytest.approx(row.mult_adds_per_second / row.peak_mult_adds_per_second)
        assert row.share_of_peak < 1
        assert row.peak_memory_bytes > row.added_memory_bytes >= row.added_private_bytes > 0


def test_a_model_alone_has_no_peer(folder):
    (row,) = bench([folder / "m.so"], seconds=0.05)
    assert (row.vs_best_peer, row.mean_vs_best_peer) == (None, None)


def test_other_files_are_compiled_for_the_occasion(folder, smallcnn):
    args = ["bench", folder / "m.safetensors", folder / "m.so", "--engine", "compiled", "--seconds", "0.05"]
    code, out, _ = smallcnn(*args, "--json")
    rows = json.loads(out)
    assert code == 0
    assert [(row["file"], row["engine"]) for row in rows] == [(str(args[i]), "compiled") for i in (1, 2)]
    assert len(list(folder.iterdir())) == 7  # the fixture's: two networks in three kinds of file, and the photos


def test_bench_tables(folder, smallcnn):
    args = ["bench", *(folder / f"{name}.{kind}" for name in ("m", "other") for kind in ("onnx", "so"))]
    code, out, err = smallcnn(*args, "--engine", "compiled", "--engine", "onnxruntime", "--seconds", "0.05")
    assert code == 0
    for column in ("% of peak", "vs best peer", "private memory"):
        assert column in out
    assert "geometric mean" in out
    assert "G Mult-Adds/s; verified" in out
    (line,) = err.splitlines()
    assert line.startswith("not timed, because the engine does not run such files: ")
    assert line.endswith(f"{folder / 'm.so'} in onnxruntime, {folder / 'other.so'} in onnxruntime")


def test_without_halide_the_peak_is_unknown_and_compiling_names_the_extra(folder, smallcnn, refused, monkeypatch):
    monkeypatch.setitem(sys.modules, "halide", None)
    code, out, _ = smallcnn("bench", folder / "m.so", "--seconds", "0.05")
    assert code == 0
    assert "peak not measured" in out
    assert "pip install 'smallcnn[compile]'" in refused("bench", folder / "m.onnx", "--engine", "compiled")


# --- bench --by-layer --------------------------------------------------------------------------------------------


def test_steps_account_for_the_whole_network(folder):
    steps = by_layer(folder / "other.so", seconds=0.1)
    (row,) = bench([folder / "other.so"], seconds=0.05)
    assert sum(step.mult_adds for step in steps) == row.mult_adds
    assert sum(step.share_of_time for step in steps) == pytest.approx(1)
    assert {"stem.conv", "many.conv", "classifier"} <= {node for step in steps for node in step.nodes}
    for step in steps:
        assert step.median_ms >= 0
        assert (step.share_of_peak is None) == (step.mult_adds == 0)
        if step.mult_adds:
            assert step.name in ", ".join(step.nodes)
            assert step.mult_adds_per_second == pytest.approx(step.mult_adds / step.median_ms * 1e3)


def test_by_layer_prints_and_refuses(folder, smallcnn, refused):
    code, out, _ = smallcnn("bench", "--by-layer", folder / "m.so", "--seconds", "0.05")
    assert code == 0
    assert "stem.conv" in out
    assert "GFLOP/s" in out
    code, out, _ = smallcnn("bench", "--by-layer", folder / "m.onnx", "--seconds", "0.05", "--json")
    assert code == 0
    assert sum(step["mult_adds"] for step in json.loads(out)) == 2316
    assert "takes one FILE" in refused("bench", "--by-layer", folder / "m.so", folder / "other.so")
    assert "takes one FILE" in refused("bench", "--by-layer", folder / "m.so", "--engine", "torch")
    assert "seconds must be above 0" in refused("bench", "--by-layer", folder / "m.so", "--seconds", "0")


def test_a_wrong_answer_is_not_timed_by_layer(folder, monkeypatch):
    monkeypatch.setattr(by_layer_module, "take_turns", lambda *_: pytest.fail("timed a wrong network"))
    monkeypatch.setattr(runtime.Net, "verify", lambda _: 1.0)
    with pytest.raises(SmallcnnError, match="gives a wrong answer"):
        by_layer(folder / "m.so")


# --- the peak ----------------------------------------------------------------------------------------------------


def test_the_peak_is_one_of_this_century():
    """From one 4-wide multiply-add a cycle of a slow clock, to four 16-wide ones of a fast clock."""
    made = peak.meter(threads=1)
    take_turns([made.run], 0.1, lambda done: None)
    assert 1e9 < made.speed < 6e9 * 4 * 16


def test_the_peak_does_every_product(tmp_path):
    """What it computes, written to where it can be read, against the recurrence in float64."""
    target = targets.host()
    vectors, lanes = 2, 2 * target.vector
    program = peak._program(target, vectors)
    (step,) = program.steps
    output = replace(step.buffers[-1], space="output")
    seen = replace(step, buffers=(*step.buffers[:-1], output))
    path = tmp_path / f"peak{target.suffixes[0]}"
    link.write(replace(program, steps=(seen,), outputs={"sums": Tensor((peak._CHAINS, lanes))}), path)
    sums = compiled.load(path, 2).run(peak._IMAGE[None])["sums"][0]
    weights = np.frombuffer(program.weights, np.float32).astype(np.float64)
    expected, factors, terms = np.split(weights, [lanes, lanes + peak._LENGTH])
    for factor, term in zip(factors, terms, strict=True):
        expected = expected * factor + term
    np.testing.assert_allclose(sums, np.tile(expected, (peak._CHAINS, 1)), rtol=1e-6)  # errors shrink by half each step
    assert peak.meter(1).mult_adds == peak._CHAINS * peak._LENGTH * target.vector * (target.registers - 4)


LEVELS = [name for name in targets.names() if targets.runs_here(targets.parse(name))]


@pytest.mark.parametrize("name", LEVELS)
def test_the_peak_of_bytes_does_every_product(tmp_path, name):
    """What it computes, written to where it can be read, against the sums of products in whole numbers."""
    target = targets.parse(name)
    program = integer_peak.program(target)
    (step,) = program.steps
    source, weight = (
        np.frombuffer(program.weights, one.type, offset=one.offset, count=np.prod(one.extents))
        .reshape(one.extents[::-1])
        .astype(int)
        for one in step.buffers[:-1]
    )
    lanes, pixels, again = step.buffers[-1].extents
    output = replace(step.buffers[-1], space="output")
    path = tmp_path / f"peak{target.suffixes[0]}"
    seen = replace(step, buffers=(*step.buffers[:-1], output))
    outputs = {"sums": Tensor((again, pixels, lanes), "int32")}
    link.write(replace(program, steps=(seen,), outputs=outputs), path)
    sums = compiled.load(path, 2).run(peak._IMAGE[None])["sums"][0]
    wanted = np.einsum("pkj,vkcj->pvc", source, weight).reshape(pixels, lanes)
    np.testing.assert_array_equal(sums, np.tile(wanted, (again, 1, 1)))
    assert integer_peak.mult_adds(target) == again * source.size * lanes
