"""Public face detectors, whose decoding is known as data: they find the faces of photographs of faces."""

import tarfile

import numpy as np
import pytest

from shared_files import shared
from smallcnn import runtime
from smallcnn.foreign.decodings import DECODINGS
from smallcnn.tflite import read_tflite

FILES = ("face_ultralight_slim_320x240_float", "face_blazeface_front_128_float16")


def test_shapes_and_ends_of_known_decodings_fit():
    for known in DECODINGS:
        columns = known.detect.found_classes(known.scores)
        assert known.detect.output_shape((known.coded[0], 4), known.scores) == (known.detect.most, 6)
        assert len(known.labels) == columns
    assert len({(known.input, known.coded, known.scores) for known in DECODINGS}) == len(DECODINGS)


@pytest.mark.parametrize("name", FILES)
def test_finds_one_face_in_each_of_60_portraits(name, tmp_path):
    model = read_tflite(shared(f"data/{name}.tflite"))
    assert model.labels == ("face",)
    with tarfile.open(shared("data/faces_orl_lfw.tar")) as archive:
        archive.extractall(tmp_path, filter="data")
    pictures = sorted((tmp_path / "faces/lfw").rglob("*.jpg"))
    assert len(pictures) >= 60
    answers = list(runtime.of(model, threads=1).answers(pictures))
    assert all(len(answer.scores) for answer in answers)
    centres = np.array([answer.boxes[0].reshape(2, 2).mean(0) for answer in answers])
    sizes = np.array([answer.boxes[0][2:] - answer.boxes[0][:2] for answer in answers])
    assert (sizes.min(1) > 20).all()
    assert np.isfinite(centres).all()
