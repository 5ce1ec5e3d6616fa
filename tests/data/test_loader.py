"""Batches do not depend on threads, nothing is lost without a word, and nothing is left running."""

import io
import threading
import time

import numpy as np
import pytest
from PIL import Image

from smallcnn.data.loader import all_prepared, batches, rate
from smallcnn.data.sources import Split, open_source
from smallcnn.data.targets import Classes
from smallcnn.errors import DataError, ImageError
from smallcnn.image.fit import Preprocessing
from smallcnn.image.geometry import Seen
from smallcnn.image.resample import Prepared

COUNT = 50
ORDER = np.random.default_rng(0).permutation(COUNT)
SPLIT = Split(
    np.arange(COUNT, dtype=np.uint8).repeat(4).reshape(COUNT, 2, 2),
    Classes(np.arange(COUNT) % 7),
    [f"image {i}" for i in range(COUNT)],
)


def show(pixels):
    """These pixels as they are, as the whole of an image."""
    height, width = pixels.shape[:2]
    return Prepared(pixels, Seen((height, width), (height, width), (0, 0, width, height)))


def pixels(index):
    """(2, 2, 1), every pixel the image's index; later ones are faster, so that threads finish out of order."""
    time.sleep((COUNT - index) * 2e-5)
    return show(SPLIT.images[index][..., None])


def loaded(prepare=pixels, order=ORDER, *, batch_size=12, workers=2, **options):
    return batches(SPLIT, prepare, order, batch_size=batch_size, workers=workers, **options)


def idle():
    """True once no thread of a loader is left; they may finish the image they are at."""
    deadline = time.monotonic() + 10
    while any(thread.name.startswith("decode") for thread in threading.enumerate()):
        if time.monotonic() > deadline:
            return False
        time.sleep(0.01)
    return True


@pytest.mark.parametrize("workers", [0, 1, 2, 5])
@pytest.mark.parametrize("batch_size", [1, 12, 25, 60])
@pytest.mark.parametrize("order", [ORDER, range(COUNT), [3, 3, 1], []], ids=["array", "range", "list", "empty"])
def test_batches_are_the_images_in_order(workers, batch_size, order):
    got = list(loaded(order=order, workers=workers, batch_size=batch_size))
    want = [list(order[start : start + batch_size]) for start in range(0, len(order), batch_size)]
    assert [batch.indices.tolist() for batch in got] == want
    for batch in got:
        assert not batch.failed
        np.testing.assert_array_equal(batch.images, batch.indices[:, None, None, None] * np.ones((2, 2, 1), int))
        np.testing.assert_array_equal(batch.labels, batch.indices % 7)
    assert idle()


def test_decoding_in_threads_is_decoding_one_after_the_other():
    rng = np.random.default_rng(0)
    kinds = [("JPEG", "RGB"), ("PNG", "P"), ("WEBP", "RGBA"), ("TIFF", "I;16"), ("GIF", "L"), ("JPEG", "CMYK")]
    files = []
    for i in range(COUNT):
        kind, mode = kinds[i % len(kinds)]
        image = Image.fromarray(rng.integers(0, 256, (60 + i, 90 - i), np.uint8)).convert(mode)
        image.save(file := io.BytesIO(), kind)
        files.append(file.getvalue())
    prepare = Preprocessing((24, 24)).prepare
    want = np.stack([prepare(file).pixels for file in files])
    got = loaded(lambda index: prepare(files[index]), range(COUNT), workers=8)
    np.testing.assert_array_equal(np.concatenate([batch.images for batch in got]), want)


def test_images_that_fail_are_named_and_left_out():
    def prepare(index):
        if index % 3 == 0:
            raise ImageError(f"image {index}: torn")
        return pixels(index)

    got = list(loaded(prepare, range(COUNT)))
    kept = [batch.indices.tolist() for batch in got]
    assert kept == [[i for i in range(start, min(start + 12, COUNT)) if i % 3] for start in range(0, COUNT, 12)]
    for batch in got:
        np.testing.assert_array_equal(batch.images[:, 0, 0, 0], batch.indices)
        np.testing.assert_array_equal(batch.labels, batch.indices % 7)
    failed = {name: text for batch in got for name, text in batch.failed.items()}
    assert failed == {f"image {i}": f"image {i}: torn" for i in range(0, COUNT, 3)}


def test_a_batch_of_failures_is_an_empty_batch():
    def prepare(index):
        if index < 12:
            raise ImageError("torn")
        return pixels(index)

    first, second, *_ = loaded(prepare, range(COUNT))
    assert first.images.dtype == np.uint8
    assert [len(x) for x in (first.images, first.labels, first.indices, first.failed)] == [0, 0, 0, 12]
    assert len(second.images) == 12


def test_bugs_keep_their_traceback_and_stop_the_threads():
    def prepare(index):
        return {}[index]

    with pytest.raises(KeyError) as caught:
        list(loaded(prepare))
    assert caught.traceback[-1].name == "prepare"
    assert idle()


def test_no_more_is_decoded_than_ahead():
    done = []

    def prepare(index):
        done.append(index)
        return pixels(index)

    loader = loaded(prepare, batch_size=4, ahead=3)
    assert not done, "nothing starts before it is asked for"
    next(loader)
    deadline = time.monotonic() + 10
    while len(done) < 4 + 3 * 4 and time.monotonic() < deadline:
        time.sleep(0.01)
    time.sleep(0.05)
    assert sorted(done) == sorted(ORDER[: 4 + 3 * 4])
    loader.close()


def test_what_waits_is_dropped_when_the_loop_is_left():
    left, done = threading.Event(), []

    def prepare(index):
        if index >= 8:
            left.wait(60)
        done.append(index)
        return pixels(index)

    loader = loaded(prepare, range(COUNT), batch_size=8, workers=1, ahead=4)
    next(loader)
    loader.close()
    left.set()
    assert idle()
    assert done in (list(range(8)), list(range(16)))  # with or without the images the thread was at


def test_leaving_the_loop_stops_the_threads():
    for _ in loaded():
        break
    assert idle()


def test_one_percent_of_damaged_files(tmp_path):
    """300 images, three of them damaged in the ways that files are: all others are loaded, these are named."""
    Image.new("RGB", (40, 40), "red").save(file := io.BytesIO(), "JPEG")
    whole = file.getvalue()
    damaged = {"a/007.jpg": b"", "b/100.jpg": whole[: len(whole) // 2], "a/299.jpg": b"<html>not found</html>"}
    for i in range(300):
        for name in ("a", "b"):
            (tmp_path / name).mkdir(exist_ok=True)
            path = tmp_path / name / f"{i:03d}.jpg"
            path.write_bytes(damaged.get(f"{name}/{i:03d}.jpg", whole))
    split = open_source(tmp_path).everything()
    prepare = Preprocessing((8, 8)).prepare
    found = list(batches(split, lambda i: prepare(split.images[i]), range(600), batch_size=64, workers=2))
    failed = {name: text for batch in found for name, text in batch.failed.items()}
    assert failed.keys() == damaged.keys()
    assert failed["a/007.jpg"].endswith("007.jpg: an empty file")
    assert "damaged image" in failed["b/100.jpg"]
    assert "not a JPEG" in failed["a/299.jpg"]
    assert sum(len(batch.labels) for batch in found) == 597


def test_the_rate_is_images_by_time(monkeypatch):
    """Ten images of 5 ms one after the other cannot come faster than 200 a second, nor 400 from two threads."""

    def slow(index):
        time.sleep(0.005)
        return show(SPLIT.images[index][..., None])

    one, two = (rate(batches(SPLIT, slow, range(COUNT), batch_size=10, workers=n), 2.0) for n in (1, 2))
    assert 10 < one < 200
    assert 10 < two < 400
    started = time.perf_counter()
    rate(batches(SPLIT, slow, [0] * 10_000, batch_size=10, workers=1), seconds=0.1)
    assert time.perf_counter() - started < 2, "it does not go through everything"


def test_all_images_at_once_without_those_that_cannot_be_decoded(tmp_path):
    """Even if no image of a whole batch can be."""
    for i in range(40):
        Image.new("RGB", (8, 8), (i, 0, 0)).save(tmp_path / f"{i:02}.png")
    paths = sorted(tmp_path.iterdir())
    for path in paths[:20]:
        path.write_bytes(b"no image")
    split = Split(paths, Classes(np.zeros(40, np.int64)), [path.name for path in paths])
    said = []
    found = all_prepared(split, Preprocessing((4, 4)), report=lambda *progress: said.append(progress))
    np.testing.assert_array_equal(found[:, 0, 0, 0], np.arange(20, 40))
    assert found.shape == (20, 4, 4, 3)
    assert said[-1] == (40, 40)
    np.testing.assert_array_equal(all_prepared(split, Preprocessing((4, 4)), [30, 3, 22])[:, 0, 0, 0], [30, 22])
    assert all_prepared(split, Preprocessing((4, 4)), []).shape == (0, 4, 4, 3)
    with pytest.raises(DataError, match=r"none of 3 images can be decoded; first error: .*00\.png: not a JPEG"):
        all_prepared(split, Preprocessing((4, 4)), [0, 1, 2])
