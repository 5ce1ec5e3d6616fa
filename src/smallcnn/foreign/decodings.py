"""Public detectors whose files end in codes and scores: how these become objects, as data.

A file is recognised by its input and by the shapes of its two outputs.
"""

from dataclasses import dataclass
from typing import Any

from smallcnn.ir import ops
from smallcnn.ir.ops import AnchorGrid
from smallcnn.ir.types import Shape


@dataclass(frozen=True)
class Decoding:
    """`coded` and `scores` are the shapes of the outputs; of the columns of a code, the first four are a box.

    `detect` is the end that replaces what other programs do with them. Pixels are (x - mean) / std, both in 0..1; None:
    as the reader finds.
    """

    name: str
    input: tuple[int, int]
    coded: Shape
    scores: Shape
    detect: ops.Detect
    labels: tuple[str, ...]
    mean: float | None = None
    std: float | None = None


def _squares(plane: tuple[int, int], stride: int, *pixels: int) -> AnchorGrid:
    """A square of each of these sides at the centre of every cell."""
    height, width = plane
    return AnchorGrid(
        cells=(-(-height // stride), -(-width // stride)),
        sizes=tuple((side / width, side / height) for side in pixels),
        step=(stride / height, stride / width),
    )


_FACE: dict[str, Any] = {"y_first": False, "clip": False, "across": True, "overlap": 0.3, "most": 100}
_SLIM, _FRONT = (240, 320), (128, 128)
_WHOLE = (1.0, 1.0)

DECODINGS = (
    Decoding(
        "Ultra-light face detector, 320x240 (Linzaer/Ultra-Light-Fast-Generic-Face-Detector-1MB)",
        _SLIM, (4420, 4), (4420, 2),
        ops.Detect(
            anchors=(
                _squares(_SLIM, 8, 10, 16, 24), _squares(_SLIM, 16, 32, 48), _squares(_SLIM, 32, 64, 96),
                _squares(_SLIM, 64, 128, 192, 256),
            ),
            score="softmax", background=True, centre="linear", size="exp", centre_scale=0.1, size_scale=0.2,
            threshold=0.7, **_FACE,
        ),
        ("face",), 127 / 255, 128 / 255,
    ),
    Decoding(
        "BlazeFace, front camera (Bazarevsky et al. 2019, arXiv 1907.05047): places and sizes in pixels",
        _FRONT, (896, 16), (896, 1),
        ops.Detect(
            anchors=(
                AnchorGrid(cells=(16, 16), sizes=(_WHOLE,) * 2, step=(1 / 16, 1 / 16)),
                AnchorGrid(cells=(8, 8), sizes=(_WHOLE,) * 6, step=(1 / 8, 1 / 8)),
            ),
            score="sigmoid", background=False, centre="linear", size="linear", centre_scale=1 / 128,
            size_scale=1 / 128, threshold=0.5, **_FACE,
        ),
        ("face",),
    ),
)  # fmt: skip


def decoding_of(plane: Shape, coded: Shape, scores: Shape) -> Decoding | None:
    """The decoding for an input (height, width) and these outputs; None if none is known."""
    wanted = (plane, coded, scores)
    return next((one for one in DECODINGS if (one.input, one.coded, one.scores) == wanted), None)
