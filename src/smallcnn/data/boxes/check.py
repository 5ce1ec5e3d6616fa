"""Turns annotated boxes into targets: in pixels of the upright image, inside it, none of them empty or twice.

Sides are in pixels of an image of the stated size. That is the upright image, or the stored one, before EXIF turns it:
whichever has this size. Where both have it (turned by half a turn, or square), the set's other images decide, else the
upright one is meant. If the image was scaled since, its boxes are.
"""

from collections.abc import Sequence

import numpy as np

from smallcnn.data.boxes.annotations import Annotated, Faults
from smallcnn.data.targets import AREA, BOTTOM, CLASS, LEFT, RIGHT, TOP, Boxes
from smallcnn.image.header import Header

_SLACK = 1.0  # pixels: programs count the last one in or out
_ALIKE = 0.02  # of a ratio of sides, which rounding to whole pixels changes

# Whether x and y change places, and are then counted from the other side, by EXIF orientation.
_TURNS = np.array([
    (0, 0, 0), (0, 0, 0), (0, 1, 0), (0, 1, 1), (0, 0, 1), (1, 0, 0), (1, 1, 0), (1, 1, 1), (1, 0, 1),
], bool)  # fmt: skip


@np.errstate(over="ignore", invalid="ignore")  # of numbers that no image has; they are clipped
def checked(images: Sequence[Annotated], headers: Sequence[Header | None], notes: Faults, faults: Faults) -> Boxes:
    """The boxes of images with these headers (None: unreadable). Defects that were mended are counted in `notes`."""
    counts = np.array([len(image.rows) for image in images], np.int64)
    rows = np.concatenate([np.zeros((0, 7)), *(image.rows for image in images)])
    of = np.repeat(np.arange(len(images)), counts)
    known = np.isfinite(rows[:, :4]).all(1)
    _count(notes, "boxes without numbers, dropped", images, of[~known])
    rows, of = rows[known], of[known]
    inverted = (rows[:, RIGHT] < rows[:, LEFT]) | (rows[:, BOTTOM] < rows[:, TOP])
    _count(notes, "boxes with sides in the wrong order, swapped", images, of[inverted])
    rows[:, [LEFT, RIGHT]] = np.sort(rows[:, [LEFT, RIGHT]], 1)
    rows[:, [TOP, BOTTOM]] = np.sort(rows[:, [TOP, BOTTOM]], 1)
    full = (rows[:, RIGHT] > rows[:, LEFT]) & (rows[:, BOTTOM] > rows[:, TOP])
    _count(notes, "empty boxes, dropped", images, of[~full])
    rows, of = rows[full], of[full]
    rows, of, sizes = _in_upright_pixels(rows, of, images, headers, notes, faults)
    rows, of = _inside(rows, of, sizes, images, notes)
    rows, of = _once(rows, of, images, notes)
    counts = np.bincount(of, minlength=len(images))
    return Boxes(rows, counts, max([1, *counts.tolist()]))


def _count(notes: Faults, what: str, images: Sequence[Annotated], of: np.ndarray) -> None:
    """Notes a defect of boxes, given the images that they are in."""
    if len(of):
        notes.add(what, images[of[0]].name, len(of))


def _in_upright_pixels(
    rows: np.ndarray,
    of: np.ndarray,
    images: Sequence[Annotated],
    headers: Sequence[Header | None],
    notes: Faults,
    faults: Faults,
) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """The boxes in pixels of the upright images, their images, and (width, height) of all images (N, 2)."""
    stated = np.array([image.size or (np.nan, np.nan) for image in images], np.float64).reshape(-1, 2)
    fractions, unstated = (stated == 1).all(1), np.isnan(stated[:, 0])
    there = np.array([header is not None for header in headers], bool)
    upright, stored = (
        np.array([getattr(header, side) if header else size for header, size in zip(headers, stated, strict=True)])
        .reshape(-1, 2)
        .astype(np.float64)
        for side in ("upright", "stored")
    )
    orientation = np.array([header.orientation if header else 1 for header in headers], np.int64)
    lost = ~there & (fractions | unstated)
    _count(notes, "boxes of images that cannot be read, dropped", images, of[lost[of]])
    rows, of = rows[~lost[of]], of[~lost[of]]

    measured = ~(fractions | unstated)
    before = measured & _before_turning(stated, stored, upright, orientation)
    target = np.where(before[:, None], stored, upright)
    scaled = measured & ~_same_size(stated, target)
    odd = scaled & ~_same_shape(stated, target)
    outside = of[(rows[:, [RIGHT, BOTTOM]] > target[of] + _SLACK).any(1)]
    wrong = odd & (np.bincount(outside, minlength=len(images)) > 0)
    _count(faults, "images of another shape than annotated, with boxes outside", images, np.flatnonzero(wrong))
    _count(notes, "images of another size than annotated, boxes kept", images, np.flatnonzero(odd & ~wrong))
    _count(notes, "images scaled since they were annotated, boxes scaled too", images, np.flatnonzero(scaled & ~odd))
    _count(notes, "images annotated before EXIF turns them, boxes turned", images, np.flatnonzero(before))

    scale = np.where((fractions | (scaled & ~odd))[:, None], target / np.where(stated > 0, stated, 1), 1.0)
    rows = rows.copy()
    rows[:, :4] *= np.tile(scale, 2)[of]
    rows[:, AREA] *= scale.prod(1)[of]
    turned = before[of]
    rows[turned, :4] = _turn(rows[turned, :4], orientation[of[turned]], upright[of[turned]])
    return rows, of, upright


def _before_turning(stated: np.ndarray, stored: np.ndarray, upright: np.ndarray, orientation: np.ndarray) -> np.ndarray:
    """Which images were annotated as stored, by sizes (N, 2); where both fit, as most of the others were."""
    turned = orientation > 1
    fits, fits_stored = _same_size(stated, upright), _same_size(stated, stored)
    neither = ~fits & ~fits_stored
    alike, alike_stored = _same_shape(stated, upright), _same_shape(stated, stored)
    before = turned & (fits_stored & ~fits | neither & alike_stored & ~alike)
    most = before.sum() > (turned & fits & ~fits_stored).sum()
    return before | (turned & fits & fits_stored & most)


def _same_size(one: np.ndarray, other: np.ndarray) -> np.ndarray:
    return (np.abs(one - other) <= _SLACK).all(1)


def _same_shape(one: np.ndarray, other: np.ndarray) -> np.ndarray:
    """Whether sizes (N, 2) have the same ratio of sides, as far as whole pixels allow."""
    a, b = one[:, 0] * other[:, 1], one[:, 1] * other[:, 0]
    rounding = _SLACK / np.minimum(one, other).min(1)
    return np.abs(a - b) <= np.maximum(_ALIKE, rounding) * np.maximum(a, b)


def _turn(sides: np.ndarray, orientation: np.ndarray, size: np.ndarray) -> np.ndarray:
    """Sides (n, 4) in stored images -> in the upright ones, of these sizes (n, 2)."""
    swap, across, along = _TURNS[orientation].T
    corners = sides.reshape(-1, 2, 2)
    corners = np.where(swap[:, None, None], corners[:, :, ::-1], corners)
    flip = np.stack([across, along], 1)[:, None, :]
    return np.sort(np.where(flip, size[:, None, :] - corners, corners), 1).reshape(-1, 4)


def _inside(
    rows: np.ndarray, of: np.ndarray, sizes: np.ndarray, images: Sequence[Annotated], notes: Faults
) -> tuple[np.ndarray, np.ndarray]:
    """Boxes clipped to their images."""
    within = np.clip(rows[:, :4], 0, np.tile(sizes, 2)[of])
    full = (within[:, RIGHT] > within[:, LEFT]) & (within[:, BOTTOM] > within[:, TOP])
    _count(notes, "boxes outside of their images, dropped", images, of[~full])
    beyond = (np.abs(within - rows[:, :4]) > _SLACK).any(1) & full
    _count(notes, "boxes that reach beyond their images, clipped", images, of[beyond])
    rows = rows.copy()
    rows[:, :4] = within
    own = (rows[:, RIGHT] - rows[:, LEFT]) * (rows[:, BOTTOM] - rows[:, TOP])
    rows[:, AREA] = np.where((rows[:, AREA] > 0) & np.isfinite(rows[:, AREA]), rows[:, AREA], own)
    return rows[full], of[full]


def _once(
    rows: np.ndarray, of: np.ndarray, images: Sequence[Annotated], notes: Faults
) -> tuple[np.ndarray, np.ndarray]:
    """Boxes without those that repeat the class and the sides of another in their image."""
    keys = np.column_stack([of, rows[:, CLASS], rows[:, :4]])
    _, first = np.unique(keys, axis=0, return_index=True)
    kept = np.zeros(len(rows), bool)
    kept[first] = True
    _count(notes, "boxes that repeat another, dropped", images, of[~kept])
    return rows[kept], of[kept]
