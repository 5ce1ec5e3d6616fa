"""Cost of decoding and of ICC profiles: the table of docs/data.md.

    python benchmarks/decoding.py

Milliseconds of processor time for one image on one thread: median and range of nine rounds, all kinds in turns, after
one uncounted round. The image is smooth noise of a phone's size, 4032x3024, decoded for a shorter side of 512 pixels,
as for a network at 224.
"""

import io
import sys
import time
from pathlib import Path
from statistics import median

import numpy as np
from PIL import Image, ImageCms

from smallcnn.image.decode import decode

sys.path.append(str(Path(__file__).parent.parent / "tests"))
from profiles import DISPLAY_P3, matrix_profile

_SIZE, _SHORTER, _ROUNDS = (4032, 3024), 512, 9


def main() -> None:
    """Print one row per kind of image."""
    noise = np.random.default_rng(0).integers(0, 256, (189, 252, 3), np.uint8)
    photo = Image.fromarray(noise).resize(_SIZE, Image.Resampling.BICUBIC)
    srgb = ImageCms.ImageCmsProfile(ImageCms.createProfile("sRGB")).tobytes()
    p3 = matrix_profile(*DISPLAY_P3)
    grey = np.asarray(photo.convert("L"), np.uint16) * 257
    kinds = {
        "JPEG, no profile": _encoded(photo, "JPEG", quality=90),
        "JPEG, sRGB profile": _encoded(photo, "JPEG", quality=90, icc_profile=srgb),
        "JPEG, Display P3 profile": _encoded(photo, "JPEG", quality=90, icc_profile=p3),
        "PNG, no profile": _encoded(photo, "PNG", compress_level=1),
        "PNG, sRGB profile": _encoded(photo, "PNG", compress_level=1, icc_profile=srgb),
        "PNG, Display P3 profile": _encoded(photo, "PNG", compress_level=1, icc_profile=p3),
        "PNG, 16-bit grey": _encoded(Image.fromarray(grey), "PNG", compress_level=1),
        "PNG, 16-bit grey of which 12 bits are used": _encoded(Image.fromarray(grey >> 4), "PNG", compress_level=1),
    }
    times: dict[str, list[float]] = {kind: [] for kind in kinds}
    for number in range(_ROUNDS + 1):
        for kind, data in kinds.items():
            started = time.process_time()
            decode(data, 1 if "grey" in kind else 3, _SHORTER)
            if number:
                times[kind].append(1000 * (time.process_time() - started))
    for kind, found in times.items():
        print(f"| {kind} | {median(found):.1f} ({min(found):.1f}-{max(found):.1f}) |")


def _encoded(image: Image.Image, kind: str, **options: object) -> bytes:
    file = io.BytesIO()
    image.save(file, kind, **options)
    return file.getvalue()


if __name__ == "__main__":
    main()
