"""Anchors in training against plain loops, and codes against the definition's decoding."""

from itertools import product

import numpy as np
import pytest
import torch

from smallcnn.data.targets import CROWD, DIFFICULT, NO_BOX, PLAIN
from smallcnn.reference import detection
from smallcnn.train.anchors import IGNORED, NOTHING, Anchors, generalised_overlap
from squares import detect

CPU = torch.device("cpu")


def rows(*boxes):
    """Objects (left, top, right, bottom, flag) as rows, padded with one of no box."""
    found = [[*sides, 0, 0, flag] for *sides, flag in boxes]
    return [*found, [0, 0, 0, 0, NO_BOX, 0, 0]]


def area(box):
    return (box[2] - box[0]) * (box[3] - box[1])


def shared(a, b):
    width, height = min(a[2], b[2]) - max(a[0], b[0]), min(a[3], b[3]) - max(a[1], b[1])
    return max(width, 0) * max(height, 0)


def by_loops(op, objects):
    """The owner of each anchor of one image."""
    places = detection.anchors(op).astype(np.float64)
    anchors = [(x - w / 2, y - h / 2, x + w / 2, y + h / 2) for x, y, w, h in places]
    real = [(i, row) for i, row in enumerate(objects) if row[4] != NO_BOX]
    owners = []
    for anchor in anchors:
        overlaps = [
            (shared(anchor, row) / (area(anchor) + area(row) - shared(anchor, row)), i)
            for i, row in real
            if row[6] == PLAIN
        ]
        most, owner = max(overlaps, default=(0, NOTHING), key=lambda pair: (pair[0], -pair[1]))
        hidden = any(row[6] != PLAIN and shared(anchor, row) > area(anchor) / 2 for _, row in real)
        owners.append(owner if most > 0.5 else IGNORED if hidden else NOTHING)
    claims = {}
    for i, row in real:
        if row[6] == PLAIN:
            overlaps = [shared(anchor, row) / (area(anchor) + area(row) - shared(anchor, row)) for anchor in anchors]
            distance = [(x - (row[0] + row[2]) / 2) ** 2 + (y - (row[1] + row[3]) / 2) ** 2 for x, y, _, _ in places]
            best = int(np.argmax(np.array(overlaps) - 0.001 * np.array(distance)))
            claims[best] = max(claims.get(best, (0, 0)), (overlaps[best], -i))
    for anchor, (_, i) in claims.items():
        owners[anchor] = -i
    return owners


def random_objects(rng, count, most):
    centre, size = rng.random((count, 2)), rng.uniform(0.03, 0.7, (count, 2))
    sides = np.concatenate([(centre - size / 2).clip(0, 1), (centre + size / 2).clip(0, 1)], 1)
    flags = rng.choice([PLAIN, PLAIN, PLAIN, CROWD, DIFFICULT], count)
    found = np.zeros((most, 7), np.float32)
    found[:, 4] = NO_BOX
    found[:count, :4], found[:count, 4], found[:count, 6] = sides, 0, flags
    return found


@pytest.mark.parametrize("seed", range(20))
def test_owners_are_those_of_the_rule(seed):
    rng = np.random.default_rng(seed)
    objects = np.stack([random_objects(rng, count, 6) for count in (0, 1, 3, 6)])
    op = detect()
    found = Anchors(op, CPU).owners(torch.from_numpy(objects))
    assert found.tolist() == [by_loops(op, image) for image in objects]


def test_the_best_anchor_is_for_an_object_too_small_for_any():
    anchors = Anchors(detect(), CPU)
    objects = torch.tensor(
        [rows((0.24, 0.24, 0.26, 0.26, PLAIN), (0.1, 0.1, 0.9, 0.2, DIFFICULT))], dtype=torch.float32
    )
    (owners,) = anchors.owners(objects)
    assert (owners == 0).sum() == 1
    x, y, _, _ = anchors.places[int(owners.argmax())].tolist()
    assert (x, y) == pytest.approx(
        (0.25, 0.25), abs=1e-6
    )  # the cell around it; by half in the difficult one, but taken


@pytest.mark.parametrize(
    ("centre", "size", "y_first"), list(product(["linear", "tanh"], ["exp", "linear", "sigmoid"], [False, True]))
)
def test_codes_are_the_inverse_of_the_definitions_decoding(centre, size, y_first):
    op = detect(
        centre=centre, size=size, y_first=y_first, clip=False, centre_scale=1.0 if centre == "tanh" else 0.1,
        size_scale=0.2 if size == "exp" else 1.0,
    )  # fmt: skip
    anchors, rng = Anchors(op, CPU), np.random.default_rng(0)
    numbers = torch.arange(op.anchor_count)
    x, y, width, height = anchors.places.T.numpy()
    share = rng.uniform(0.2, 0.9, (4, op.anchor_count))  # reachable for a tanh and a sigmoid too
    centre_x, centre_y = x + (share[0] - 0.5) * width, y + (share[1] - 0.5) * height
    half_width, half_height = share[2] * width / 2, share[3] * height / 2
    boxes = np.stack(
        [centre_x - half_width, centre_y - half_height, centre_x + half_width, centre_y + half_height], 1
    ).astype(np.float32)
    codes = anchors.encoded(torch.from_numpy(boxes), numbers)
    np.testing.assert_allclose(detection.decoded(op, codes.numpy()), boxes, atol=3e-6)
    np.testing.assert_allclose(anchors.decoded(codes, numbers).numpy(), boxes, atol=3e-6)


@pytest.mark.parametrize(("centre", "size"), list(product(["linear", "tanh"], ["exp", "linear", "sigmoid"])))
def test_boxes_out_of_reach_have_finite_codes(centre, size):
    anchors = Anchors(detect(centre=centre, size=size), CPU)
    boxes = torch.tensor([[0.0, 0.0, 1.0, 1.0], [0.9, 0.9, 0.9001, 0.9001]])
    assert anchors.encoded(boxes, torch.tensor([0, 1])).isfinite().all()


def test_generalised_overlap_by_hand():
    first = torch.tensor([[0, 0, 2, 2], [0, 0, 1, 1], [0, 0, 1, 1], [0, 0, 4, 2.0]])
    second = torch.tensor([[1, 1, 3, 3], [2, 0, 3, 1], [0, 0, 1, 1], [1, 0, 2, 2.0]])
    # 1/7 - 2/9; nothing shared, a third of the hull empty; equal; inside: no empty hull
    want = [1 / 7 - 2 / 9, -1 / 3, 1.0, 0.25]
    np.testing.assert_allclose(generalised_overlap(first, second).numpy(), want, rtol=1e-6)


def test_a_large_batch_is_matched_in_moderate_memory():
    """8,732 anchors, 64 images, 50 boxes each: SSD300's largest batch."""
    op = detect()
    grid = op.anchors[0]
    many = detect()
    object.__setattr__(many, "anchors", (type(grid)(cells=(59, 74), sizes=grid.sizes, step=(1 / 59, 1 / 74)),))
    rng = np.random.default_rng(0)
    objects = torch.from_numpy(np.stack([random_objects(rng, 50, 50) for _ in range(64)]))
    owners = Anchors(many, CPU).owners(objects)
    assert owners.shape == (64, 59 * 74 * 2)
    assert owners[5].tolist() == Anchors(many, CPU).owners(objects[5:6])[0].tolist()
