"""Samples of more than eight bits: black and white are what the file says; a guess is told."""

import struct
import warnings
import zlib

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image

from shared_files import shared
from smallcnn.errors import ImageError, ImageNote
from smallcnn.image.decode import decode

UNSIGNED, SIGNED, FLOAT = 1, 2, 3
MIN, MAX, SMIN, SMAX = 280, 281, 340, 341


def tiff(values, *, order="<", bits=None, white_is_zero=False, planes=False, deflate=False, **tags):
    """A TIFF 6.0 file written by hand, of (H, W) or (H, W, bands); a strip, or one per plane; `tags` as t281=4095."""
    values = np.asarray(values)
    height, width, *bands = values.shape
    samples = bands[0] if bands else 1
    stored = values.astype(values.dtype.newbyteorder(order))
    strips = [plane.tobytes() for plane in np.moveaxis(stored, -1, 0)] if planes else [stored.tobytes()]
    if bits == 12:  # two samples in three bytes, the high bits first
        pairs = values.reshape(-1, 2).astype(np.uint16)
        rows = pairs[:, 0] >> 4, (pairs[:, 0] & 15) << 4 | pairs[:, 1] >> 8, pairs[:, 1] & 255
        strips = [np.stack(rows, 1).astype(np.uint8).tobytes()]
    strips = [zlib.compress(strip) for strip in strips] if deflate else strips
    data, starts = b"".join(strips), [8 + sum(map(len, strips[:i])) for i in range(len(strips))]
    kind = {"u": UNSIGNED, "i": SIGNED, "f": FLOAT}[values.dtype.kind]
    entries = {
        256: ("H", [width]), 257: ("H", [height]), 258: ("H", [bits or 8 * values.itemsize] * samples),
        259: ("H", [8 if deflate else 1]), 262: ("H", [2 if samples >= 3 else 0 if white_is_zero else 1]),
        273: ("I", starts), 277: ("H", [samples]), 278: ("H", [height]), 279: ("I", [len(strip) for strip in strips]),
        284: ("H", [2 if planes else 1]), 339: ("H", [kind] * samples),
    }  # fmt: skip
    if samples == 4:
        entries[338] = ("H", [2])  # the fourth is alpha
    for name, value in tags.items():
        entries[int(name[1:])] = ("f" if isinstance(value, float) else "h" if value < 0 else "H", [value])
    codes = {"H": 3, "I": 4, "h": 8, "f": 11}
    directory_at = 8 + len(data) + len(data) % 2
    extra_at = directory_at + 2 + 12 * len(entries) + 4
    directory, extra = struct.pack(order + "H", len(entries)), b""
    for tag, (code, numbers) in sorted(entries.items()):
        packed = struct.pack(f"{order}{len(numbers)}{code}", *numbers)
        if len(packed) > 4:
            packed, extra = struct.pack(order + "I", extra_at + len(extra)), extra + packed
        directory += struct.pack(order + "HHI", tag, codes[code], len(numbers)) + packed.ljust(4, b"\0")
    head = (b"II*\0" if order == "<" else b"MM\0*") + struct.pack(order + "I", directory_at)
    return head + data + b"\0" * (len(data) % 2) + directory + bytes(4) + extra


def png(values, *, colour, bits=16, significant=None, clear=None):
    """A PNG, no row filtered; `colour` is its colour type, `significant` what sBIT says of each sample."""

    def chunk(kind, data):
        return struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(kind + data))

    values = np.asarray(values, ">u2")
    height, width = values.shape[:2]
    single = np.unpackbits(values.reshape(height, -1, 1).view(np.uint8), axis=2)[..., 16 - bits :]
    rows = b"".join(b"\0" + np.packbits(row).tobytes() for row in single)
    parts = [chunk(b"IHDR", struct.pack(">IIBBBBB", width, height, bits, colour, 0, 0, 0))]
    if significant:
        parts.append(chunk(b"sBIT", bytes(significant)))
    if clear is not None:
        parts.append(chunk(b"tRNS", np.asarray(clear, ">u2").tobytes()))
    return b"\x89PNG\r\n\x1a\n" + b"".join([*parts, chunk(b"IDAT", zlib.compress(rows)), chunk(b"IEND", b"")])


def read(data, channels=1):
    """(pixels, notes)."""
    with warnings.catch_warnings(record=True) as told:
        warnings.simplefilter("always")
        pixels = np.asarray(decode(data, channels).image, int)
    assert all(isinstance(one.message, ImageNote) for one in told)
    return pixels, [str(one.message) for one in told]


def levels(values, white, black=0):
    """PNG's specification, 13.12: linear, rounded to the nearest."""
    return np.floor((np.asarray(values, float) - black) * 255 / (white - black) + 0.5)


RAMP16, RAMP12 = (np.linspace(0, top, 64).round().astype(np.uint16)[None].repeat(2, 0) for top in (65535, 4095))
ORDERS = pytest.mark.parametrize("order", ["<", ">"])


@ORDERS
@pytest.mark.parametrize("white_is_zero", [False, True])
@pytest.mark.parametrize("deflate", [False, True])
@pytest.mark.parametrize("bits", [12, 16])
def test_tiff_says_bits_and_which_end_is_white(order, white_is_zero, deflate, bits):
    ramp, white = {12: (RAMP12, 4095), 16: (RAMP16, 65535)}[bits]
    pixels, notes = read(tiff(ramp, order=order, bits=bits, white_is_zero=white_is_zero, deflate=deflate))
    want = levels(ramp, white)
    np.testing.assert_array_equal(pixels, 255 - want if white_is_zero else want)
    assert not notes


@pytest.mark.parametrize("bits", [1, 2, 4, 8])
@pytest.mark.parametrize("kind", ["pgm", "png"])
def test_few_bits_are_stretched(kind, bits):
    white = 2**bits - 1
    ramp = np.arange(white + 1, dtype=np.uint8)[None]
    data = b"P5 %d 1 %d\n" % (white + 1, white) + ramp.tobytes() if kind == "pgm" else png(ramp, colour=0, bits=bits)
    np.testing.assert_array_equal(read(data)[0], levels(ramp, white))


@given(maximum=st.integers(1, 65535), data=st.data())
@settings(max_examples=60, deadline=None)
def test_a_portable_greymap_is_scaled_by_its_own_maximum(maximum, data):
    values = data.draw(st.lists(st.integers(0, maximum), min_size=1, max_size=20))
    body = np.array(values, ">u2" if maximum > 255 else np.uint8).tobytes()
    plain = " ".join(map(str, values)).encode()
    for kind, content in ((b"P5", body), (b"P2", plain)):
        pixels, notes = read(kind + b" %d 1 %d\n" % (len(values), maximum) + content)
        np.testing.assert_allclose(pixels, levels([values], maximum), atol=1)  # Pillow goes by way of 16 bits
        assert not notes


@given(
    low=st.integers(0, 1000), width=st.integers(1, 60000), order=st.sampled_from("<>"), flipped=st.booleans(),
    seed=st.integers(0, 99),
)  # fmt: skip
@settings(max_examples=60, deadline=None)
def test_tiff_states_its_range(low, width, order, flipped, seed):
    values = np.random.default_rng(seed).integers(low, low + width, (3, 5), np.uint16, endpoint=True)
    pixels, notes = read(tiff(values, order=order, white_is_zero=flipped, t280=low, t281=low + width))
    want = levels(values, low + width, low)
    np.testing.assert_allclose(pixels, 255 - want if flipped else want, atol=1)  # 32-bit floats, just at a half
    assert not notes


def test_a_stated_range_that_the_pixels_contradict_is_passed_over():
    np.testing.assert_array_equal(read(tiff(RAMP16, t281=255))[0], levels(RAMP16, 65535))


@ORDERS
def test_signed_samples_need_a_stated_range(order):
    values = np.linspace(-1000, 3000, 64).round().astype(np.int16)[None]
    pixels, notes = read(tiff(values, order=order, t340=-1000, t341=3000))
    np.testing.assert_array_equal(pixels, levels(values, 3000, -1000))
    assert not notes
    with pytest.raises(ImageError, match="signed 16-bit pixels have no known range; store 8 or 16 bits, or state"):
        decode(tiff(values, order=order), 1)
    with pytest.raises(ImageError, match="signed 16-bit pixels have no known range"):
        decode(tiff(values, order=order, t341=3000), 1)  # half a range
    with pytest.raises(ImageError, match="signed 8-bit pixels have no known range"):
        decode(tiff(np.array([[-1, 5]], np.int8), order=order), 1)
    np.testing.assert_array_equal(read(tiff(np.array([[0, 127]], np.int8), order=order))[0], [[0, 255]])
    np.testing.assert_array_equal(read(tiff(np.array([[0, 32767]], np.int16), order=order))[0], [[0, 255]])


@ORDERS
def test_floating_point_needs_a_stated_range(order):
    values = np.linspace(-0.5, 1.5, 64, dtype=np.float32)[None]
    pixels, _ = read(tiff(values, order=order, t340=0.0, t341=1.0))
    np.testing.assert_allclose(pixels, levels(np.clip(values, 0, 1), 1), atol=1)  # 32-bit floats, just at a half
    with pytest.raises(ImageError, match="floating-point pixels have no known range"):
        decode(tiff(values, order=order), 1)
    with pytest.raises(ImageError, match="not all finite"):
        decode(tiff(values * np.float32(np.nan), order=order, t340=0.0, t341=1.0), 1)


@ORDERS
def test_32_bits_without_a_range_are_refused_by_name(order):
    with pytest.raises(ImageError, match="signed 32-bit pixels have no known range"):
        decode(tiff(np.array([[1, 1 << 20]], np.int32), order=order), 1)
    with pytest.raises(
        ImageError, match=r"a TIFF of 3 floating-point samples of 32 bits \(photometric 2\), which Pillow does not"
    ):
        decode(tiff(np.zeros((2, 2, 3), np.float32), order=order), 3)
    with pytest.raises(ImageError, match=r"a TIFF of 1 floating-point sample of 64 bits"):
        decode(tiff(np.zeros((2, 2)), order=order), 3)


def test_twelve_bits_in_sixteen_are_guessed_and_told():
    for data in (tiff(RAMP12), tiff(RAMP12, order=">"), png(RAMP12, colour=0)):
        pixels, notes = read(data)
        np.testing.assert_array_equal(pixels, levels(RAMP12, 4095))
        assert len(notes) == 1
        assert "read as 12 bits" in notes[0]
    pixels, notes = read(tiff(4095 - RAMP12, white_is_zero=True))
    np.testing.assert_array_equal(pixels, levels(RAMP12, 4095))
    dark = RAMP16 >> 2  # fourteen bits, or an underexposed sixteen
    pixels, notes = read(png(dark, colour=0))
    np.testing.assert_array_equal(pixels, levels(dark, 65535))
    assert "read as 16 bits" in notes[0]
    assert not read(png(RAMP16 * 0, colour=0))[1]


@pytest.mark.parametrize("bits", [8, 10, 12, 14, 16])
def test_png_says_how_many_bits_count(bits):
    """Whether they are stored as they are, or stretched to sixteen as the specification wants."""
    white = 2**bits - 1
    ramp = np.linspace(0, white, 64).round().astype(np.uint16)[None]
    stretched = np.floor(ramp * (65535 / white) + 0.5)
    for stored in (ramp, stretched):
        pixels, notes = read(png(stored, colour=0, significant=[bits]))
        np.testing.assert_allclose(pixels, levels(ramp, white), atol=1)  # stretched and back: two roundings
        assert not notes


COLOURS = np.random.default_rng(0).integers(0, 65536, (4, 6, 4), np.uint16)


@pytest.mark.parametrize("shift", [0, 4], ids=["16 bits", "12 bits"])
@ORDERS
def test_colours_of_sixteen_bits(order, shift):
    values = COLOURS[..., :3] >> shift
    want = levels(values, 65535 >> shift)
    for data in (
        tiff(values, order=order), tiff(values, order=order, deflate=True), tiff(values, order=order, planes=True),
        png(values, colour=2),
    ):  # fmt: skip
        pixels, notes = read(data, 3)
        np.testing.assert_allclose(pixels, want, atol=1)  # of full 16 bits the high byte is taken
        assert len(notes) == bool(shift)


def test_compressed_planes_lose_their_low_bytes_and_say_so():
    """Pillow has no way to them: libtiff unpacks each plane by itself."""
    pixels, notes = read(tiff(COLOURS[..., :3] >> 4, planes=True, deflate=True), 3)
    np.testing.assert_array_equal(pixels, COLOURS[..., :3] >> 12)
    assert notes == ["a 16-bit colour image uses less than a quarter of its range; its dark shades are lost"]
    pixels, notes = read(tiff(COLOURS[..., :3], planes=True, deflate=True), 3)
    np.testing.assert_array_equal(pixels, COLOURS[..., :3] >> 8)
    assert not notes


@pytest.mark.parametrize("shift", [0, 4], ids=["16 bits", "12 bits"])
@pytest.mark.parametrize("alpha_shift", [0, 4])
@ORDERS
def test_transparent_colours_of_sixteen_bits_lie_over_white(order, shift, alpha_shift):
    values = np.concatenate([COLOURS[..., :3] >> shift, COLOURS[..., 3:] >> alpha_shift], -1)
    if alpha_shift > shift:
        return  # alpha of fewer bits than the colours: nobody writes that
    alpha = values[..., 3:] / (65535 >> alpha_shift)
    want = levels(values[..., :3], 65535 >> shift) * alpha + 255 * (1 - alpha)
    for data in (tiff(values, order=order), png(values, colour=6)):
        np.testing.assert_allclose(read(data, 3)[0], want, atol=2.5)  # three roundings
    grey = np.concatenate([values[..., :1], values[..., 3:]], -1)
    np.testing.assert_allclose(read(png(grey, colour=4), 1)[0], want[..., 0], atol=2.5)


def test_one_transparent_value_is_compared_in_all_its_bits():
    grey = np.array([[0x1234, 0x1235, 0xFFFF, 0]], np.uint16)
    np.testing.assert_array_equal(read(png(grey, colour=0, clear=[0x1234]))[0], [[255, 0x12, 255, 0]])
    colours = np.stack([grey, grey, grey], -1)
    got = read(png(colours, colour=2, clear=[0x1234] * 3), 3)[0]
    np.testing.assert_array_equal(got[..., 0], [[255, 0x12, 255, 0]])


def test_sixteen_bits_in_pillow(tmp_path):
    (tmp_path / "x.png").write_bytes(png(RAMP16, colour=0, significant=[16]))
    for loaded in (False, True):
        image = Image.open(tmp_path / "x.png")
        if loaded:
            image.load()
        np.testing.assert_array_equal(np.asarray(decode(image, 1).image), levels(RAMP16, 65535))
    np.testing.assert_array_equal(np.asarray(decode(Image.fromarray(RAMP16), 1).image), levels(RAMP16, 65535))


def test_real_files():
    """Twelve bits that say so, and the same values in sixteen that do not."""
    twelve, notes = read(shared("cases/images/pil_12bit.cropped.tif"))
    wide, guessed = read(shared("cases/images/pil_12in16bit.tif"))
    np.testing.assert_array_equal(twelve, wide)
    assert (len(notes), len(guessed)) == (0, 1)
