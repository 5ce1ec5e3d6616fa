"""Public face detectors, whose decoding is known as data: they find the faces of photographs of faces."""

import tarfile
from dataclasses import replace

import pytest

from shared_files import shared
from smallcnn import runtime
from smallcnn.foreign.decodings import DECODINGS
from smallcnn.tflite import read_tflite

FILES = {"face_ultralight_slim_320x240_float": 0, "face_blazeface_front_128_float16": 1}
"""Face detectors, and the number of 54 street views without faces in which they find one: the README of the images,
which counted with the originals. Of images scaled by a triangle filter, the second finds one in two (0.56 and 0.53)."""


def test_shapes_and_ends_of_known_decodings_fit():
    for known in DECODINGS:
        columns = known.detect.found_classes(known.scores)
        assert known.detect.output_shape((known.coded[0], 4), known.scores) == (known.detect.most, 6)
        assert len(known.labels) == columns
    assert len({(known.input, known.coded, known.scores) for known in DECODINGS}) == len(DECODINGS)


def unpacked(archive, folder, pattern):
    """The images of a shared archive whose place fits `pattern`."""
    with tarfile.open(shared(f"data/{archive}")) as tar:
        tar.extractall(folder, filter="data")
    return sorted(folder.glob(pattern))


@pytest.mark.parametrize(("name", "alarms"), FILES.items())
def test_finds_the_faces_of_60_portraits_and_hardly_any_in_54_streets(name, alarms, tmp_path):
    model = read_tflite(shared(f"data/{name}.tflite"))
    assert model.labels == ("face",)
    net = runtime.of(replace(model, preprocessing=replace(model.preprocessing, interpolation="lanczos")), threads=1)
    portraits = unpacked("faces_orl_lfw.tar", tmp_path, "faces/lfw/*/*.jpg")
    assert len(portraits) == 60
    for answer in net.answers(portraits):  # 250x250, the face in the middle, some with others behind
        assert ((answer.boxes[:, :2] < 125) & (answer.boxes[:, 2:] > 125)).all(1).sum() == 1
    streets = unpacked("geophotos_512.tar", tmp_path, "geophotos/images/osv_*.jpg")
    assert len(streets) == 54
    assert sum(len(answer.scores) > 0 for answer in net.answers(streets)) == alarms
