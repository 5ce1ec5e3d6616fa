"""Held-out images that look like training images are found, other images are not."""

import io
import json

import numpy as np
import pytest
from PIL import Image, ImageEnhance, ImageFilter

from shared_files import shared
from smallcnn.cli.main import main
from smallcnn.data import duplicates
from smallcnn.data.shards.remote import RemoteStore
from smallcnn.data.sources import open_source
from smallcnn.data.split import Split
from smallcnn.data.targets import Classes
from smallcnn.image.stored import Stored
from smallcnn.model.store import load


def photo(seed, side=80):
    """Smooth shapes, other ones for each seed."""
    coarse = np.random.default_rng(seed).integers(0, 256, (7, 9, 3), np.uint8)
    return Image.fromarray(coarse).resize((side + 20, side), Image.Resampling.BICUBIC)


def stored(image, kind="PNG", **options):
    file = io.BytesIO()
    image.save(file, kind, **options)
    return file.getvalue()


def split(images, name="{}.png"):
    return Split(images, Classes(np.zeros(len(images), int)), [name.format(i) for i in range(len(images))])


TRAIN = split([stored(photo(seed)) for seed in range(40)], "train/a/{}.png")


@pytest.mark.parametrize(
    "change",
    [
        stored, lambda image: stored(image, "JPEG", quality=30),
        lambda image: stored(image.resize((50, 40))), lambda image: stored(ImageEnhance.Brightness(image).enhance(0.7)),
        lambda image: stored(image.filter(ImageFilter.GaussianBlur(1))),
        lambda image: stored(image.crop((1, 1, 99, 79))),
        lambda image: stored(ImageEnhance.Contrast(image).enhance(0.8)),
    ],
    ids=["copy", "jpeg", "smaller", "darker", "blurred", "cut", "flatter"],
)  # fmt: skip
def test_found(change):
    held_out = split([change(photo(7)), stored(photo(100)), change(photo(31))], "val/a/{}.png")
    found = duplicates.between(TRAIN, held_out)
    assert found.pairs == (("val/a/0.png", "train/a/7.png"), ("val/a/2.png", "train/a/31.png"))
    assert found.as_dict() == {"alike": 2, "checked": 3}
    assert found.line().startswith("2 of 3 held-out images look like training images (val/a/0.png like train/a/7.png, ")


def test_others_are_not():
    found = duplicates.between(TRAIN, split([stored(photo(seed)) for seed in range(100, 300)]))
    assert (found.pairs, found.line()) == ((), "")


@pytest.mark.parametrize("level", [0, 128, 255])
def test_blank_images_are_not(level):
    blank = [stored(Image.new("RGB", (64, 64), (level,) * 3))] * 2
    assert duplicates.between(split(blank), split(blank)).pairs == ()


def test_small_ones_only_if_they_are_copies():
    rng = np.random.default_rng(0)
    digits = rng.integers(0, 256, (10, 8, 8), np.uint8)
    near = digits.copy()
    near[:, 0, 0] ^= 1
    near[3] = digits[5]
    assert duplicates.between(split(digits), split(near)).pairs == (("3.png", "5.png"),)


def test_of_a_large_set_the_neighbours_by_name(monkeypatch):
    """Every fourth frame of 60 recordings is held out; 20 of them and 200 training images are looked at."""
    monkeypatch.setattr(duplicates, "_HELD_OUT", 20)
    monkeypatch.setattr(duplicates, "_TRAINING", 200)
    frames = [(f"clip{clip:02}_{frame}.png", stored(photo(clip))) for clip in range(60) for frame in range(8)]
    train = [frame for i, frame in enumerate(frames) if i % 4]
    held = frames[::4]
    parts = [
        Split([data for _, data in part], Classes(np.zeros(len(part), int)), [f"{name}/a/{one}" for one, _ in part])
        for name, part in (("train", train), ("val", held))
    ]
    found = duplicates.between(*parts)
    assert (found.checked, found.images, len(found.pairs)) == (20, 120, 20)
    assert "20 of 20 checked of 120 held-out images" in found.line()
    for one, other in found.pairs:
        assert one.split("/")[2][:6] == other.split("/")[2][:6]


def test_of_large_files_fewer(monkeypatch):
    monkeypatch.setattr(duplicates, "_BYTES", 6600 / 100 * len(TRAIN.images[0]))
    found = duplicates.between(TRAIN, TRAIN)
    assert 3 <= found.checked <= 8, "a hundredth of 600"
    assert len(found.pairs) == found.checked


def test_what_cannot_be_decoded_is_passed_over():
    broken = split([b"x", stored(photo(3)), b""])
    assert len(duplicates.between(TRAIN, broken).pairs) == 1
    assert duplicates.between(broken, TRAIN).pairs == (("train/a/3.png", "1.png"),)
    assert duplicates.between(split([b"x"]), split([b"x"])).pairs == ()


def test_nothing_is_fetched_for_it():
    there = split([Stored(RemoteStore("https://localhost:1/x.tar"), 0, 1, "x")])
    assert duplicates.between(there, TRAIN) is None
    assert duplicates.between(TRAIN, there) is None


@pytest.mark.parametrize(
    ("file", "part", "most"),
    [
        ("flowers5_160.tar", "val", 2),
        ("clothing10_160.tar", "val", 1),
        ("cifar10_lossless_4000train_500test.npz", "test", 0),
    ],
)
def test_on_real_sets(file, part, most):
    """Looked at one by one: the two flowers are the same photograph; the two shirts are different ones."""
    source = open_source(shared(f"data/{file}"))
    assert len(duplicates.between(source.splits["train"], source.splits[part]).pairs) <= most


def test_said_by_train_and_analyze(tmp_path, capsys):
    for part, seeds in (("train", range(8)), ("val", (0, 20, 21))):
        for name, offset in (("a", 0), ("b", 50)):
            (tmp_path / "set" / part / name).mkdir(parents=True)
            for seed in seeds:
                photo(seed + offset).save(tmp_path / "set" / part / name / f"{seed}.png")
    run = ["train", "mobilenet_v1:width=0.25", "--data", str(tmp_path / "set"), "--out", str(tmp_path / "run"),
           "--epochs", "1", "--resolution", "32"]  # fmt: skip
    line = "note: 2 of 6 held-out images look like training images (val/a/0.png like train/a/0.png, "
    with pytest.raises(SystemExit):
        main(run)
    assert line in capsys.readouterr().err.replace("\n", "")
    model = tmp_path / "run" / "best.safetensors"
    assert load(model).facts["data"]["near_duplicates"] == {"alike": 2, "checked": 6}
    with pytest.raises(SystemExit):
        main(["analyze", str(model), "--data", str(tmp_path / "set"), "--sweep", "0", "--json"])
    told = capsys.readouterr()
    assert line in told.err
    assert json.loads(told.out)["near_duplicates"] == {"alike": 2, "checked": 6}
