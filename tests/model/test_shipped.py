"""The network that comes with the package is what its model card says, and answers without being told where it is."""

import re
from importlib.resources import files

import numpy as np
import pytest

import smallcnn as library
from shared_files import shared
from smallcnn.cost.profile import profile
from smallcnn.model import shipped, store
from smallcnn.model.kinds import read

CLASSES = ("airplane", "automobile", "bird", "cat", "deer", "dog", "frog", "horse", "ship", "truck")
LOSSLESS = "data/cifar10_lossless_4000train_500test.npz"


@pytest.fixture(scope="module")
def card():
    return files("smallcnn.model.shipped").joinpath("cifar10.md").read_text("utf-8")


def test_the_card_has_the_networks_integers(card):
    model = read("cifar10")
    cost = profile(model.graph)
    assert model.labels == CLASSES
    assert f"{cost.mult_adds:,} Mult-Adds" in card
    assert f"{cost.parameters:,} parameters" in card
    assert shipped.located("cifar10").stat().st_size < 3_000_000


def test_the_card_says_what_a_model_card_says(card):
    for heading in ("Data", "Training", "Accuracy", "Limits"):
        assert f"\n## {heading}\n" in card
    facts = store.load(shipped.located("cifar10")).facts
    assert str(facts["recipe"]["epochs"]) in card
    assert "/" not in facts["data"]["name"]


def test_it_is_as_accurate_on_lossless_pictures_as_the_card_says(card):
    with np.load(shared(LOSSLESS), allow_pickle=False) as archive:
        images, labels = archive["x_test"], archive["y_test"]
    net = library.open("cifar10", threads=1)
    right = (net.logits(images).argmax(1) == labels).sum()
    (said,) = re.findall(r"\| lossless .*? \| .*? \| (\d+) of 502 ", card)
    assert abs(int(right) - int(said)) <= 1  # an engine may round a tie the other way


def test_a_file_of_that_name_comes_first(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    assert shipped.located("cifar10").name == "cifar10.safetensors"
    (tmp_path / "cifar10").mkdir()
    assert str(shipped.located("cifar10")) == "cifar10"
    assert shipped.names() == ["cifar10"]
