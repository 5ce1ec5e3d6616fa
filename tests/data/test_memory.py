"""Images held in memory are those that decoding gives, bit for bit; small ones are shifted a batch at a time."""

from concurrent.futures import ThreadPoolExecutor

import numpy as np
import pytest
from PIL import Image

from smallcnn.data import memory
from smallcnn.data.memory import PreparedSplit, Remembered
from smallcnn.data.sources import Split, open_source
from smallcnn.data.targets import Classes
from smallcnn.errors import ImageError
from smallcnn.image.crops import shifted
from smallcnn.image.decode import decode
from smallcnn.image.fit import Preprocessing


@pytest.mark.parametrize("shape", [(9, 8, 8, 1), (5, 6, 11, 3)], ids=str)
@pytest.mark.parametrize("pad", [0, 1, 5])
def test_shifting_is_cropping_a_padded_image(shape, pad):
    rng = np.random.default_rng(0)
    count, height, width, _ = shape
    images = rng.integers(0, 256, shape, np.uint8)
    indices = rng.integers(0, count, 40)
    dy, dx = rng.integers(-pad, pad + 1, (2, 40))
    mirrored = rng.random(40) < 0.5
    got = shifted(images, indices, dy, dx, mirrored)
    assert (got.shape, got.dtype) == ((40, *shape[1:]), np.uint8)
    for b, i in enumerate(indices):
        padded = np.pad(images[i], ((pad, pad), (pad, pad), (0, 0)), mode="reflect")
        top, left = pad + dy[b], pad + dx[b]
        want = padded[top : top + height, left : left + width]
        np.testing.assert_array_equal(got[b], want[:, ::-1] if mirrored[b] else want)


@pytest.fixture
def photos(tmp_path):
    """20 JPEGs of different sizes, of which number 3 is cut short, 7 is empty and 11 is text."""
    rng = np.random.default_rng(0)
    for i in range(20):
        noise = Image.fromarray(rng.integers(0, 256, (5, 7, 3), np.uint8))
        path = tmp_path / "ab"[i % 2] / f"{i:02d}.jpg"
        path.parent.mkdir(exist_ok=True)
        noise.resize((100 + 7 * i, 150 - i), Image.Resampling.BICUBIC).save(path)
        if i in BROKEN:
            path.write_bytes({3: path.read_bytes()[:800], 7: b"", 11: b"no image"}[i])
    return open_source(tmp_path).everything()


BROKEN = 3, 7, 11


def broken(split):
    return {name for name in split.names if int(name[2:4]) in BROKEN}


@pytest.mark.parametrize("preprocessing", [Preprocessing((32, 32)), Preprocessing((20, 24), (0.5,), (0.5,), 1.0)])
@pytest.mark.parametrize("batch", [1, 7, 256])
def test_prepared_images_are_those_of_preprocessing(photos, preprocessing, batch, monkeypatch):
    monkeypatch.setattr(memory, "_BATCH", batch)
    ready = PreparedSplit(photos, preprocessing, workers=3)
    split = ready.split
    assert ready.held
    assert set(ready.failed) == broken(photos)
    assert split.images.nbytes == 17 * np.prod(split.images.shape[1:])
    files = dict(zip(photos.names, zip(photos.images, photos.labels, strict=True), strict=True))
    assert list(split.names) == [name for name in photos.names if name not in ready.failed]
    for image, label, name in zip(split.images, split.labels, split.names, strict=True):
        np.testing.assert_array_equal(image, preprocessing.prepare(files[name][0]).pixels)
        assert label == files[name][1]


@pytest.mark.parametrize("fit", ["crop", "letterbox"])
def test_batches_are_the_same_from_memory_and_from_files(photos, fit):
    preprocessing = Preprocessing((12, 20), fit=fit)
    good = photos.subset([i for i, name in enumerate(photos.names) if name not in broken(photos)])
    order = np.random.default_rng(0).permutation(len(good))
    most = 17 * 12 * 20 * 3
    held, files = (PreparedSplit(good, preprocessing, 2, budget) for budget in (most, most - 1))
    assert (held.held, files.held) == (True, False)
    for batch, other in zip(held.batches(order, 5), files.batches(order, 5), strict=True):
        np.testing.assert_array_equal(batch.images, other.images)
        np.testing.assert_array_equal(batch.labels, other.labels)
        assert batch.indices.tolist() == other.indices.tolist()
        assert [one.image for one in batch.seen] == [(150 - i, 100 + 7 * i) for i in map(number(good), batch.indices)]
        assert batch.seen == other.seen


def number(split):
    """The number in an image's name, from its index."""
    return lambda index: int(split.names[index][2:4])


def test_an_array_of_the_right_size_is_used_as_it_is():
    pixels = np.random.default_rng(0).integers(0, 256, (6, 8, 10), np.uint8)
    split = Split(pixels, Classes(np.arange(6)), list("abcdef"))
    ready = PreparedSplit(split, Preprocessing((8, 10), (0.5,), (0.5,), crop=1.0), 1, budget=0)
    assert ready.held
    (batch,) = ready.batches([4, 1], 8)
    np.testing.assert_array_equal(batch.images[..., 0], pixels[[4, 1]])
    assert batch.labels.tolist() == [4, 1]
    np.testing.assert_array_equal(batch.seen[0].to_image([[3, 2]]), [[3, 2]])


@pytest.mark.parametrize("shorter", [10, 60, 1000])
@pytest.mark.parametrize("channels", [1, 3])
def test_remembered_images_are_those_of_the_decoder(photos, shorter, channels):
    remembered = Remembered(photos, channels, shorter)
    for _ in range(2):
        for i, name in enumerate(photos.names):
            if name in broken(photos):
                with pytest.raises(ImageError, match=name):
                    remembered(i)
            else:
                want, got = decode(photos.images[i], channels, shorter), remembered(i)
                assert (got.size, got.factor, got.image.mode) == (want.size, want.factor, want.image.mode)
                assert got.image.tobytes() == want.image.tobytes()
        assert len(remembered) == 17


def test_a_remembered_image_is_not_decoded_again(photos):
    remembered = Remembered(photos, 3, 10)
    assert remembered(0) is remembered(0)


def test_a_budget_is_kept_by_many_threads(photos):
    sizes = [4 * 3000 for _ in photos.names]  # bytes of a 50x60 image in Pillow
    same = Image.new("RGB", (50, 60))
    split = type(photos)([np.asarray(same)] * 20, photos.labels, photos.names)
    for budget in (0, sizes[0] - 1, sizes[0], 5 * sizes[0] + 1, 1 << 30):
        remembered = Remembered(split, 3, 10, budget)
        with ThreadPoolExecutor(8) as pool:
            assert len(list(pool.map(remembered, [*range(20)] * 5))) == 100
        assert len(remembered) == min(20, budget // sizes[0])
