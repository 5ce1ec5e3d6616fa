"""A network with attributes in every kind of file and engine: the same scores on the images of a table."""

from dataclasses import replace

import numpy as np
import pytest

from artifacts import artifact, colour_photos
from smallcnn import making, runtime
from smallcnn.compiler.compiling import compile_file
from smallcnn.data.sources import open_source
from smallcnn.errors import DataError
from smallcnn.evaluate import evaluate
from smallcnn.model import store
from smallcnn.tasks.attributes import Attributes
from smallcnn.tasks.metrics import scores

COLOURS = ("colour: blue", "colour: red")
TASK = Attributes(("warm", *COLOURS), {"colour": COLOURS})


@pytest.fixture(scope="module")
def photos(tmp_path_factory):
    """24 images in three folders; a table knows the colours of two of them, and has a column that is no question."""
    root = colour_photos(tmp_path_factory.mktemp("attributes") / "photos")
    rows = ["file,shot,warm,colour"]
    for colour in ("blue", "green", "red"):
        warm, known = "no" if colour == "blue" else "yes" if colour == "red" else "", colour * (colour != "green")
        rows += [f"{colour}/{i}.png,{colour[0]}{i % 3},{warm},{known}" for i in range(8)]
    (root / "labels.csv").write_text("\n".join(rows))
    return root / "labels.csv"


def model(**facts):
    return replace(artifact(**facts), task=TASK)


def test_every_file_and_engine_gives_the_same_scores(photos, tmp_path):
    store.save(model(), tmp_path / "m.safetensors")
    making.export(tmp_path / "m.safetensors", tmp_path / "m.onnx")
    files = [(tmp_path / "m.safetensors", None), (tmp_path / "m.onnx", None)]
    files += [(tmp_path / "m.safetensors", "torch")]
    found = [evaluate(runtime.open(file, engine=engine), photos, part="all") for file, engine in files]
    (want,) = found[0].answers.outputs.values()
    assert want.shape == (24, 3)
    for result in found:
        (got,) = result.answers.outputs.values()
        np.testing.assert_allclose(got, want, rtol=0, atol=1e-5 * np.abs(want).max())
        assert result.scores == pytest.approx(scores(TASK, {"logits": want}, result.answers.targets), rel=1e-4)
    targets = found[0].answers.targets
    by_colour = {name.split("/")[0]: row.tolist() for name, row in zip(found[0].split.names, targets, strict=True)}
    assert by_colour["blue"] == [0, 1, 0]
    assert by_colour["red"] == [1, 0, 1]
    assert np.isnan(by_colour["green"]).all()


def test_a_compiled_file_too(photos, tmp_path):
    pytest.importorskip("halide")
    pytest.importorskip("ziglang")
    store.save(model(), tmp_path / "m.safetensors")
    compile_file(tmp_path / "m.safetensors", tmp_path / "m.so")
    image = photos.parent / "red" / "0.png"
    ((kept,), (compiled,)) = (runtime.open(tmp_path / name).answers([image]) for name in ("m.safetensors", "m.so"))
    assert [label for label, _ in compiled.ranked] == [label for label, _ in kept.ranked]
    assert dict(compiled.ranked) == pytest.approx(dict(kept.ranked), abs=1e-5)


def test_the_split_that_it_was_not_trained_on(photos, tmp_path):
    """The set is the same although the table has more questions than the network."""
    trained = open_source(photos, columns=["warm", "colour"], seed=5)
    facts = {"fingerprint": trained.fingerprint, "seed": 5, "val_fraction": 0.2, "name": "labels.csv", "cut": ""}
    store.save(model(data=facts), tmp_path / "m.safetensors")
    result = evaluate(tmp_path / "m.safetensors", photos)
    assert (result.part, result.doubt) == ("val", None)
    assert list(result.split.names) == list(trained.splits["val"].names)


def test_data_of_another_task(photos, tmp_path):
    store.save(model(), tmp_path / "m.safetensors")
    with pytest.raises(DataError, match="the network is for attributes, the data for classification"):
        evaluate(tmp_path / "m.safetensors", photos.parent)
    store.save(artifact(), tmp_path / "c.safetensors")
    with pytest.raises(DataError, match="the network is for classification, the data for attributes"):
        evaluate(tmp_path / "c.safetensors", photos)
