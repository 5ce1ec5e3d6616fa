"""Public detectors whose files end in codes and scores: how these become objects, as data.

A file is recognised by its input and by the shapes of its codes, its scores and, if it has one, its objectness.
"""

from dataclasses import dataclass, replace
from typing import Any

from smallcnn.image import coco
from smallcnn.image.fit import Order, Preprocessing
from smallcnn.ir import ops
from smallcnn.ir.graph import Node
from smallcnn.ir.ops import AnchorGrid
from smallcnn.ir.types import Shape


@dataclass(frozen=True)
class Decoding:
    """`coded`, `scores` and `objectness` are the shapes of what the file gives; the first four columns of a code are a
    box.

    `detect` is the end that replaces what other programs do with them. Pixels are (x - mean) / std, both in 0..1, in
    this `order`; None: as the reader finds.
    """

    name: str
    input: tuple[int, int]
    coded: Shape
    scores: Shape
    detect: ops.Detect
    labels: tuple[str, ...]
    mean: float | None = None
    std: float | None = None
    order: Order = "rgb"
    objectness: Shape | None = None

    def preparation(self, usual: Preprocessing) -> Preprocessing:
        """Its preparation of images, if that is known; else the usual one."""
        if self.mean is None or self.std is None:
            return usual
        channels = usual.channels
        return replace(usual, mean=(self.mean,) * channels, std=(self.std,) * channels, order=self.order)


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
    Decoding(
        "FastestDet, 352x352 (dog-qiuqiu/FastestDet): the size of a box is a share of the image",
        (352, 352), (484, 4), (484, 80),
        ops.Detect(
            anchors=(AnchorGrid(cells=(22, 22), sizes=(_WHOLE,), step=(1 / 22, 1 / 22), offset=0.0),),
            score="softmax", background=False, centre="tanh", size="sigmoid", centre_scale=1 / 22, size_scale=1.0,
            y_first=False, clip=False, across=False, threshold=0.35, overlap=0.45, most=100, objectness_power=0.6,
        ),
        coco.labels(), 0.0, 1.0, "bgr", (484, 1),
    ),
)  # fmt: skip


def decoding_of(plane: Shape, coded: Shape, scores: Shape, objectness: Shape | None = None) -> Decoding | None:
    """The decoding for an input (height, width) and these shapes; None if none is known."""
    wanted = (plane, coded, scores, objectness)
    return next((one for one in DECODINGS if (one.input, one.coded, one.scores, one.objectness) == wanted), None)


def decoding_at(end: Node) -> Decoding | None:
    """The known decoding that a network ends in."""
    return next((known for known in DECODINGS if known.detect == end.op), None)
