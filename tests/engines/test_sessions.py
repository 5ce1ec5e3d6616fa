"""Every engine runs the network of every operator, and both its outputs are as the definition has them."""

import pickle
from dataclasses import replace
from importlib.util import find_spec

import numpy as np
import pytest

from anything import Anything, any_task
from networks import every_number, every_op
from smallcnn import onnx, runtime
from smallcnn.bench import bench
from smallcnn.bench.first_use import FirstUse
from smallcnn.engines import engine as engines
from smallcnn.errors import AnswerError, DataError, FileError, SmallcnnError
from smallcnn.ir.types import Grid, Tensor
from smallcnn.model import metadata, store
from smallcnn.model.kinds import KINDS
from smallcnn.model.probe import TOLERANCE, relative_error
from smallcnn.reference import floating as reference
from smallcnn.tasks import kinds as tasks

NEEDS = {"compiled": "halide"}
CASES = [(kind.suffix, engine) for kind in KINDS.values() if kind.suffix != ".dll" for engine in kind.engines]
BATCH = np.random.default_rng(0).integers(0, 256, (3, 9, 8, 3), np.uint8)


@pytest.fixture(scope="module", autouse=True)
def known():
    with pytest.MonkeyPatch.context() as patch:
        patch.setitem(tasks.TASKS, "anything", Anything)
        yield


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    folder = tmp_path_factory.mktemp("models")
    model = any_task(every_number())
    store.save(model, folder / "m.safetensors")
    onnx.export(model, folder / "m.onnx")
    if find_spec("halide"):
        from smallcnn.compiler.compiling import compile_file

        compile_file(model, folder / "m.so")
    return folder


def test_every_engine_runs_a_kind_of_file():
    assert {engine for _, engine in CASES} == engines.ENGINES.keys()


@pytest.mark.parametrize(("suffix", "engine"), CASES)
def test_every_output_in_every_engine(folder, suffix, engine):
    pytest.importorskip(NEEDS.get(engine, engine))
    net = runtime.open(folder / f"m{suffix}", engine=engine, threads=1)
    assert net.outputs == {
        "logits": Tensor((5,)), "codes": Tensor((3, 5, 8), "uint8", Grid((0.004,), (3,))),
    }  # fmt: skip
    model = any_task(every_number())
    wanted = reference.run(model.graph, model.weights, model.preprocessing.normalise(BATCH))
    got = net.run(BATCH)
    assert {name: (value.dtype, value.shape) for name, value in got.items()} == {
        "logits": (np.float32, (3, 5)), "codes": (np.uint8, (3, 3, 5, 8)),
    }  # fmt: skip
    np.testing.assert_allclose(got["logits"], wanted["logits"], rtol=0, atol=1e-4 * np.abs(wanted["logits"]).max())
    off = np.abs(got["codes"].astype(int) - wanted["codes"])  # float32 before the rounding to a step
    assert off.max() <= 1
    assert np.count_nonzero(off) <= 2
    assert net.verify() < TOLERANCE
    with pytest.raises(DataError, match=r"has the outputs logits, codes; `run` gives them by name"):
        net.logits(BATCH)


@pytest.mark.parametrize("output", ["logits", "codes"])
def test_each_output_is_proved(output):
    """An engine that is wrong about one output is refused, whichever it is."""
    right = engines.ENGINES["onnxruntime"]

    def wrong(loadable, threads):
        session = right(loadable, threads)
        return replace(session, run=lambda batch: session.run(batch) | {output: 3 + session.run(batch)[output]})

    with pytest.MonkeyPatch.context() as patch:
        patch.setitem(engines.ENGINES, "onnxruntime", wrong)
        net = runtime.of(any_task(every_number()), threads=1)
        assert net.verify() > TOLERANCE
        with pytest.raises(AnswerError, match="every_number: onnxruntime gives a wrong answer on the probe image"):
            net.run(BATCH)


def test_a_file_that_promises_other_outputs_is_refused(folder, tmp_path):
    content = (folder / "m.onnx").read_bytes()
    promised = b'"name": "codes", "shape": [3, 5, 8], "number": "uint8"'
    assert content.count(promised) == 1
    (tmp_path / "m.onnx").write_bytes(content.replace(promised, promised.replace(b"[3, 5, 8]", b"[3, 8, 5]")))
    with pytest.raises(FileError, match=r"m\.onnx: promises the outputs .*; it was changed after smallcnn wrote it"):
        runtime.open(tmp_path / "m.onnx")


@pytest.mark.parametrize("engine", ["onnxruntime", "openvino", "torch"])
def test_a_model_in_memory_runs_as_its_file(tmp_path, engine):
    pytest.importorskip(engine)
    model = any_task(every_op())
    store.save(model, tmp_path / "m.safetensors")
    net = runtime.of(model, engine=engine, threads=1)
    file = runtime.open(tmp_path / "m.safetensors", engine=engine, threads=1)
    np.testing.assert_array_equal(net.logits(BATCH), file.logits(BATCH))
    assert (net.path, net.where, file.where) == (None, "every_op", str(tmp_path / "m.safetensors"))
    assert (net.outputs, net.mult_adds, net.task) == (file.outputs, file.mult_adds, file.task)
    assert repr(net) == f"<Net every_op: anything, input 9x8x3, {engine}>"


def test_a_model_in_memory_runs_in_no_other_engine():
    model = any_task(every_op())
    with pytest.raises(SmallcnnError, match="every_op: a model in memory runs in onnxruntime or openvino or torch"):
        runtime.of(model, engine="compiled")
    with pytest.raises(SmallcnnError, match="no engine 'onxruntime'; closest: onnxruntime"):
        runtime.of(model, engine="onxruntime")


def test_the_metadata_of_every_output_comes_back():
    model = any_task(every_number())
    answer = reference.run(model.graph, model.weights, model.preprocessing.normalise(BATCH[:1]))
    said = metadata.parse(metadata.describe(model, answer={name: value[0] for name, value in answer.items()}))
    assert said.results == model.graph.results
    assert said.answer["codes"].dtype == np.uint8
    np.testing.assert_array_equal(said.answer["codes"], answer["codes"][0])
    np.testing.assert_allclose(said.answer["logits"], answer["logits"][0], rtol=1e-8)  # nine digits


def test_a_task_is_told_each_image_s_outputs_and_what_was_seen(folder):
    """Of images that are twice as high as wide, the middle is seen."""
    net = runtime.open(folder / "m.onnx", threads=1)
    images = [np.repeat(np.repeat(image, 4, 0), 2, 1) for image in BATCH]
    told = list(net.answers(images, batch=2))
    assert len(told) == 3
    for image, (outputs, seen) in zip(images, told, strict=True):
        alone = net.run(net.preprocessing.prepare(image).pixels[None])
        assert outputs.keys() == alone.keys()
        np.testing.assert_allclose(outputs["logits"], alone["logits"][0], rtol=0, atol=1e-5)
        np.testing.assert_array_equal(outputs["codes"], alone["codes"][0])
        left, top, right, bottom = seen.box  # 16 x 18 of 16 x 36, of which 7/8 is kept
        assert (seen.image, seen.size) == ((36, 16), (9, 8))
        np.testing.assert_allclose((left, top, right, bottom), (1, 10.125, 15, 25.875))


def test_a_model_in_memory_goes_to_another_process():
    net = runtime.of(any_task(every_number()), threads=1)
    net = replace(net, preprocessing=replace(net.preprocessing, crop=1.0))
    again = pickle.loads(pickle.dumps(net))
    for name, value in net.run(BATCH).items():
        np.testing.assert_array_equal(again.run(BATCH)[name], value)
    assert (again.path, again.engine, again.threads, again.preprocessing) == (None, "onnxruntime", 1, net.preprocessing)


def test_several_outputs_are_timed_once_they_are_verified(folder, monkeypatch):
    use = FirstUse(1.0, 1.0, None, None, None)  # its fresh process does not know this task
    monkeypatch.setattr(bench, "first_use", lambda *_: use)
    files = [folder / "m.safetensors", folder / "m.onnx", *folder.glob("m.so")]
    rows = bench.bench(files, seconds=0.05)
    assert [row.model for row in rows] == ["every_number"] * len(files)
    assert all(row.verified and row.error < TOLERANCE and row.end_to_end_ms > 0 for row in rows)
    wrong = {name: value + 1 for name, value in runtime.open(files[1]).run(BATCH[:1]).items()}
    wrong["logits"] -= 1  # only the bytes differ
    monkeypatch.setattr(runtime.Net, "verify", lambda net: relative_error(wrong, net.run(BATCH[:1])))
    with pytest.raises(SmallcnnError, match="gives a wrong answer on the probe image"):
        bench.bench(files[1:2], seconds=0.05)
