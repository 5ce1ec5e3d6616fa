import time
from dataclasses import fields, replace

import numpy as np
import pytest

from artifacts import artifact
from networks import every_op, images
from smallcnn import onnx
from smallcnn.bench import bench as bench_module
from smallcnn.bench.bench import bench
from smallcnn.bench.rows import Row, compared
from smallcnn.cli.main import main
from smallcnn.errors import FileError, SmallcnnError
from smallcnn.model.store import save
from smallcnn.tasks.attributes import Attributes
from smallcnn.transform.quantize import quantize


@pytest.fixture(scope="module")
def files(tmp_path_factory):
    folder = tmp_path_factory.mktemp("models")
    save(artifact(), folder / "a.safetensors")
    onnx.export(artifact(every_op()), folder / "b.onnx")
    return [folder / "a.safetensors", folder / "b.onnx"]


def test_rows_hold_together(files):
    percents = []
    rows = bench(files, threads=1, seconds=0.2, report=lambda done, total: percents.append(done / total))
    assert [row.model for row in rows] == ["tiny", "every_op"]
    assert [row.mult_adds for row in rows] == [2316, rows[1].mult_adds]
    for row in rows:
        assert row.verified
        assert 0 < row.min_ms <= row.median_ms <= row.p90_ms <= row.max_ms
        assert row.runs >= 20
        assert row.end_to_end_ms > row.min_ms  # it also decodes a JPEG
        assert row.mult_adds_per_second == pytest.approx(row.mult_adds / row.median_ms * 1e3)
        assert row.load_ms > 0
        assert row.first_ms > 0
        assert row.peak_memory_bytes > row.added_memory_bytes > 0
    assert percents == sorted(percents)
    assert percents[-1] == 1


def test_engines_take_turns_on_the_same_file(files):
    rows = bench(files[:1], engines=["onnxruntime", "torch"], seconds=0.1)
    assert [row.engine for row in rows] == ["onnxruntime", "torch"]


def test_attributes(tmp_path):
    model = replace(artifact(), task=Attributes(("warm", "colour: blue", "colour: red"), {}))
    save(model, tmp_path / "m.safetensors")
    onnx.export(model, tmp_path / "m.onnx")
    rows = bench([tmp_path / "m.safetensors", tmp_path / "m.onnx"], seconds=0.05)
    assert [row.model for row in rows] == ["tiny", "tiny"]
    for row in rows:
        assert row.verified
        assert row.mult_adds == 2316
        assert row.end_to_end_ms > row.min_ms


def test_a_wrong_answer_is_never_timed(files, tmp_path, monkeypatch):
    weights = artifact().weights["classifier.bias"]
    onnx.export(artifact(), tmp_path / "m.onnx")
    content = (tmp_path / "m.onnx").read_bytes()
    (tmp_path / "m.onnx").write_bytes(content.replace(weights.tobytes(), (weights + np.float32(1)).tobytes()))
    monkeypatch.setattr(bench_module, "take_turns", lambda *_: pytest.fail("timed a wrong network"))
    with pytest.raises(SmallcnnError, match="gives a wrong answer on the probe image"):
        bench([tmp_path / "m.onnx"], seconds=0.1)


def test_turns_measure_time():
    quick, slow = bench_module.take_turns([lambda: time.sleep(0.001), lambda: time.sleep(0.01)], 0.3, lambda done: None)
    assert min(quick) >= 1  # sleeping never takes less
    assert min(slow) >= 10
    assert len(quick) > len(slow) >= 20


def test_engines_with_a_wrong_name_are_refused_before_anything_is_imported(files):
    with pytest.raises(SmallcnnError, match="no engine 'this'; known: compiled, onnxruntime, openvino, torch"):
        bench(files, engines=["this"])


def test_what_cannot_be_opened_is_one_line(tmp_path):
    with pytest.raises(SmallcnnError, match="no such file") as caught:
        bench([tmp_path / "absent.onnx"])
    assert "\n" not in str(caught.value)
    (tmp_path / "x.onnx").write_bytes(b"hello")
    with pytest.raises((FileError, SmallcnnError), match=r"x\.onnx"):
        bench([tmp_path / "x.onnx"])


def row(engine: str, ms: float, precision: str = "float32", model: str = "net") -> Row:
    values = {field.name: 1.0 for field in fields(Row)} | {"vs_best_peer": None, "mean_vs_best_peer": None}
    names = {"file": f"{model}.onnx", "model": model, "engine": engine, "precision": precision, "cpu": "this"}
    return Row(**values | names | {"median_ms": ms, "vs_float": None})


def test_networks_of_bytes_are_compared_with_their_like_and_with_the_float_network():
    rows = compared([
        row("compiled", 4), row("onnxruntime", 6), row("compiled", 2, "int8"), row("onnxruntime", 9, "int8"),
        row("openvino", 3, "int8"), row("compiled", 5, "int8", "other"),
    ])  # fmt: skip
    assert [one.vs_best_peer for one in rows] == [1.5, 1, 1.5, 3 / 9, 1, None]
    # openvino was not timed in float: against the fastest that was
    assert [one.vs_float for one in rows] == [None, None, 2, 6 / 9, 4 / 3, None]
    assert all(one.mean_vs_best_peer == pytest.approx(1.5) for one in rows)


def test_slower_bytes_are_said_in_words(tmp_path, monkeypatch, capsys):
    rows = compared([row("compiled", 4), row("compiled", 5, "int8"), row("onnxruntime", 2, "int8")])
    monkeypatch.setattr(bench_module, "bench", lambda *_, **__: rows)
    (tmp_path / "net.onnx").write_bytes(b"")
    with pytest.raises(SystemExit) as ended:
        main(["bench", str(tmp_path / "net.onnx")])
    assert not ended.value.code
    said = [line for line in capsys.readouterr().out.splitlines() if "slower" in line]
    assert said == [
        "net.onnx in compiled: int8 is slower than float32 on this machine (5.000 ms against 4.000): "
        "use the float file here"
    ]


def test_a_network_of_bytes_is_measured_against_the_peak_of_bytes(tmp_path):
    pytest.importorskip("halide")
    made, _ = quantize(artifact(), images(artifact().graph, 4))
    save(made, tmp_path / "int8.safetensors")
    save(artifact(), tmp_path / "float.safetensors")
    of_bytes, of_floats = bench([tmp_path / "int8.safetensors", tmp_path / "float.safetensors"], seconds=0.1)
    assert (of_bytes.precision, of_floats.precision) == ("int8", "float32")
    for one in (of_bytes, of_floats):
        assert one.share_of_peak == pytest.approx(one.mult_adds_per_second / one.peak_mult_adds_per_second)
    assert of_bytes.vs_float == pytest.approx(of_floats.median_ms / of_bytes.median_ms)
    assert of_bytes.peak_mult_adds_per_second != of_floats.peak_mult_adds_per_second
