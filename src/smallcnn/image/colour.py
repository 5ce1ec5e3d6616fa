"""Conversion from an image's ICC profile to sRGB, the colour space that networks are trained on.

A profile equivalent to sRGB, whatever its name, costs almost nothing: its effect on sample colours is tested once.
"""

import io
from functools import lru_cache

import numpy as np
from PIL import Image, ImageCms, features

_SPACES = {"GRAY": "L", "RGB ": "RGB", "CMYK": "CMYK"}
"""Colour spaces of profiles -> Pillow's mode."""

_PROFILES = 16  # cached; a phone, a camera or a printer has one
_LARGEST = 8 << 20  # bytes; printer profiles have 2 million
_SAME = 2  # grey levels; profiles that call themselves sRGB round its curve in different ways


class ProfileError(Exception):
    """The reason, in a few words, why a profile cannot be used."""


def to_srgb(image: Image.Image, profile: bytes) -> Image.Image:
    """Converts an image in mode L, RGB or CMYK to sRGB; unchanged if it is sRGB already. Raises ProfileError."""
    if len(profile) > _LARGEST:
        raise ProfileError(f"it is larger than {_LARGEST >> 20} MB")
    mode, transform = _opened(profile)
    if image.mode == "L" and mode == "RGB":  # grey converted from RGB
        image = image if transform is None else image.convert("RGB")
    elif image.mode != mode:
        raise ProfileError(f"it is for {mode}, and the image is {image.mode}")
    return image if transform is None else _applied(transform, image)


def _applied(transform: ImageCms.ImageCmsTransform, image: Image.Image) -> Image.Image:
    converted = Image.new("RGB", image.size)
    transform.apply(image, converted)
    return converted


@lru_cache(maxsize=_PROFILES)
def _opened(profile: bytes) -> tuple[str, ImageCms.ImageCmsTransform | None]:
    """(the profile's mode, the transform to sRGB); the transform is None if it leaves colours unchanged."""
    if not features.check("littlecms2"):
        raise ProfileError("the installed Pillow was built without Little CMS")
    try:
        source = ImageCms.ImageCmsProfile(io.BytesIO(profile))
        mode = _SPACES.get(source.profile.xcolor_space)
        if mode is None:
            raise ProfileError(f"it is for {source.profile.xcolor_space.strip()}")
        intent = ImageCms.Intent(ImageCms.getDefaultIntent(source))
        flags = ImageCms.Flags.BLACKPOINTCOMPENSATION  # a printer's black is black
        transform = ImageCms.buildTransform(source, ImageCms.createProfile("sRGB"), mode, "RGB", intent, flags)
    except (ImageCms.PyCMSError, OSError, ValueError) as error:
        raise ProfileError("it is damaged") from error
    return mode, None if mode != "CMYK" and _changes_nothing(transform, mode) else transform


def _changes_nothing(transform: ImageCms.ImageCmsTransform, mode: str) -> bool:
    levels = np.linspace(0, 255, 16 if mode == "RGB" else 256).round().astype(np.uint8)
    if mode == "RGB":
        sample = Image.fromarray(np.stack(np.meshgrid(levels, levels, levels), -1).reshape(1, -1, 3))
    else:
        sample = Image.fromarray(levels[None])
    change = np.asarray(_applied(transform, sample), int) - np.asarray(sample.convert("RGB"), int)
    return bool(np.abs(change).max() <= _SAME)
