"""ICC profiles written by hand from published figures, and what they mean by published formulas."""

import struct

import numpy as np

# Colorants in D50 as the profiles' publishers store them, and the exponent of their curve; None is sRGB's own curve.
DISPLAY_P3 = ((0.515121, 0.241196, -0.001053), (0.291977, 0.692245, 0.041885), (0.157104, 0.066574, 0.784073), None)
ADOBE_RGB = ((0.60974, 0.31111, 0.01947), (0.20528, 0.62567, 0.06087), (0.14919, 0.06322, 0.74457), 563 / 256)

# CSS Color 4, section 18: https://www.w3.org/TR/css-color-4/#color-conversion-code
XYZ_TO_SRGB = np.array([
    [12831 / 3959, -329 / 214, -1974 / 3959],
    [-851781 / 878810, 1648619 / 878810, 36519 / 878810],
    [705 / 12673, -2585 / 12673, 705 / 667],
])  # fmt: skip
P3_TO_XYZ = np.array([
    [608311 / 1250200, 189793 / 714400, 198249 / 1000160],
    [35783 / 156275, 247089 / 357200, 198249 / 2500400],
    [0, 32229 / 714400, 5220557 / 5000800],
])  # fmt: skip
ADOBE_TO_XYZ = np.array([
    [573536 / 994567, 263643 / 1420810, 187206 / 994567],
    [591459 / 1989134, 6239551 / 9945670, 374412 / 4972835],
    [53769 / 1989134, 351524 / 4972835, 4929758 / 4972835],
])  # fmt: skip


def matrix_profile(red, green, blue, gamma):
    """For RGB, by its colorants."""
    colorants = {
        name: b"XYZ \0\0\0\0" + _fixed(*xyz)
        for name, xyz in zip(("rXYZ", "gXYZ", "bXYZ"), (red, green, blue), strict=True)
    }
    return _profile(b"mntr", b"RGB ", b"XYZ ", colorants | dict.fromkeys(("rTRC", "gTRC", "bTRC"), _curve(gamma)))


def grey_profile(gamma):
    return _profile(b"mntr", b"GRAY", b"XYZ ", {"kTRC": _curve(gamma)})


def ink_profile(lab_of):
    """For CMYK, by a table of its sixteen corners: (c, m, y, k) of 0 or 1 -> whole numbers (L, a, b)."""
    corners = [(c, m, y, k) for c in (0, 1) for m in (0, 1) for y in (0, 1) for k in (0, 1)]
    table = bytes(byte for corner in corners for byte in _lab_bytes(*lab_of(*corner)))
    straight = bytes(range(256))
    lut = (
        b"mft1\0\0\0\0" + bytes((4, 3, 2, 0)) + _fixed(1, 0, 0, 0, 1, 0, 0, 0, 1) + straight * 4 + table + straight * 3
    )
    return _profile(b"prtr", b"CMYK", b"Lab ", {"A2B0": lut})


def _lab_bytes(lightness, a, b):
    return round(lightness * 255 / 100), a + 128, b + 128


def _curve(gamma):
    if gamma is None:  # IEC 61966-2-1
        return b"para\0\0\0\0" + struct.pack(">HH", 3, 0) + _fixed(2.4, 1 / 1.055, 0.055 / 1.055, 1 / 12.92, 0.04045)
    return b"curv\0\0\0\0" + struct.pack(">IH", 1, round(gamma * 256)) + b"\0\0"


def _fixed(*numbers):
    return b"".join(struct.pack(">i", round(number * 65536)) for number in numbers)


def _profile(kind, space, connection, tags):
    tags = tags | {"wtpt": b"XYZ \0\0\0\0" + _fixed(0.9642, 1, 0.8249), "cprt": b"text\0\0\0\0none\0\0\0\0"}
    at, directory, data = 128 + 4 + 12 * len(tags), struct.pack(">I", len(tags)), b""
    for name, content in tags.items():
        directory += name.encode() + struct.pack(">II", at + len(data), len(content))
        data += content + b"\0" * (-len(content) % 4)
    head = struct.pack(">I4sI4s4s4s12x4s28x", at + len(data), b"\0" * 4, 0x02400000, kind, space, connection, b"acsp")
    return (head + _fixed(0.9642, 1, 0.8249)).ljust(128, b"\0") + directory + data


def linear(levels, gamma=None):
    """8-bit levels -> light, 0 to 1."""
    share = np.asarray(levels, float) / 255
    if gamma is not None:
        return share**gamma
    return np.where(share <= 0.04045, share / 12.92, ((share + 0.055) / 1.055) ** 2.4)


def srgb(light):
    """Light, cut off at 0 and 1 -> 8-bit levels, not rounded."""
    light = np.clip(light, 0, 1)
    return 255 * np.where(light <= 0.0031308, 12.92 * light, 1.055 * light ** (1 / 2.4) - 0.055)


def srgb_of(levels, to_xyz, gamma):
    """What RGB levels (..., 3) with these primaries are in sRGB."""
    return srgb(linear(levels, gamma) @ (XYZ_TO_SRGB @ to_xyz).T)


def srgb_of_lab(lightness, a, b):
    """CIE L*a*b* of D50, adapted to D65 by Bradford's matrix (CSS Color 4)."""
    y = (lightness + 16) / 116
    f = np.array([y + a / 500, y, y - b / 200])
    xyz = np.where(f > 6 / 29, f**3, (f - 4 / 29) * 3 * (6 / 29) ** 2) * (0.9642, 1, 0.8249)
    to_d65 = [
        [0.955473421488075, -0.02309845494876471, 0.06325924320057072],
        [-0.0283697093338637, 1.0099953980813041, 0.021041441191917323],
        [0.012314014864481998, -0.020507649298898964, 1.330365926242124],
    ]
    return srgb(XYZ_TO_SRGB @ np.array(to_d65) @ xyz)
