"""The objective of anchor-free detectors: its choice of places by the paper's words, its losses, and that it learns."""

from itertools import product
from math import log

import numpy as np
import pytest
import torch

from smallcnn import zoo
from smallcnn.data.targets import CLASS, CROWD, NO_BOX, PLAIN
from smallcnn.errors import DataError
from smallcnn.ir import ops
from smallcnn.reference.detection import anchors, decoded, detect
from smallcnn.tasks.detection import Detection
from smallcnn.train.anchor_free import AnchorFreeObjective
from smallcnn.train.recipe import Recipe
from smallcnn.train.start import Start, settled
from squares import squares

GRIDS = tuple(ops.AnchorGrid(cells=(n, n), sizes=((s, s),), step=(1 / n, 1 / n)) for n, s in ((6, 0.25), (3, 0.5)))
OP = ops.Detect(
    anchors=GRIDS, score="sigmoid", background=False, centre="linear", size="exp", centre_scale=0.1, size_scale=0.2,
    y_first=False, clip=True, across=False, threshold=0.05, overlap=0.5, most=20,
)  # fmt: skip
STEPS = np.array([1 / 6] * 36 + [1 / 3] * 9)
OBJECTIVE = AnchorFreeObjective(Detection(("ant", "bee")), Recipe(), OP, torch.device("cpu"))


def targets(*objects, rows=5):
    """Rows (1, rows, 7) of objects as (left, top, right, bottom, class, flag)."""
    made = np.zeros((1, rows, 7), np.float32)
    made[..., CLASS] = NO_BOX
    for place, (*sides, number, flag) in enumerate(objects):
        made[0, place] = [*sides, number, 0, flag]
    return torch.from_numpy(made)


def iou(a, b):
    wide, high = min(a[2], b[2]) - max(a[0], b[0]), min(a[3], b[3]) - max(a[1], b[1])
    both = max(wide, 0) * max(high, 0)
    return both / ((a[2] - a[0]) * (a[3] - a[1]) + (b[2] - b[0]) * (b[3] - b[1]) - both)


def simota(scores, boxes, objects):
    """The places' objects, -1 for none, in the words of YOLOX, with Li et al.'s loss for scores."""
    places, likely = anchors(OP), 1 / (1 + np.exp(-scores))

    def position(place, object_):
        x, y = places[place][:2]
        inside = object_[0] < x < object_[2] and object_[1] < y < object_[3]
        off = [abs(at - (object_[axis] + object_[axis + 2]) / 2) for axis, at in enumerate((x, y))]
        return inside, max(off) < 2.5 * STEPS[place]

    def cost(place, object_):
        shared, total = iou(boxes[place], object_), 0.0
        for number, p in enumerate(likely[place]):
            y = shared if number == object_[4] else 0.0
            total -= (y * log(p) + (1 - y) * log(1 - p)) * (y - p) ** 2
        return total - 3 * log(shared + 1e-7) + (0 if all(position(place, object_)) else 1e5)

    candidates = [place for place in range(len(places)) if any(any(position(place, one)) for one in objects)]
    taken = {}
    for number, one in enumerate(objects):
        best = sorted((iou(boxes[place], one) for place in candidates), reverse=True)[:10]
        for place in sorted(candidates, key=lambda place: cost(place, one))[: max(int(sum(best)), 1)]:
            taken.setdefault(place, []).append((cost(place, one), number))
    return [min(taken[place])[1] if place in taken else -1 for place in range(len(places))]


@pytest.mark.parametrize("seed", range(4))
def test_places_are_chosen_as_in_the_paper(seed):
    rng = np.random.default_rng(seed)
    scores = rng.normal(0, 2, (45, 2)).astype(np.float32)
    boxes = decoded(OP, rng.normal(0, 2, (45, 4)).astype(np.float32))
    low = rng.uniform(0, 0.5, (4, 2))
    objects = np.column_stack([low, low + rng.uniform(0.1, 0.5, (4, 2)), rng.integers(2, size=4), np.zeros((4, 2))])
    objects = objects.astype(np.float32)
    got = OBJECTIVE.owners(*map(torch.from_numpy, (scores, boxes, objects)))
    wanted = simota(scores.astype(np.float64), boxes.astype(np.float64), objects.astype(np.float64))
    assert got.tolist() == wanted
    assert len(set(wanted)) > 3  # objects compete


def test_loss_of_a_background_is_that_of_the_formula():
    scores, codes = torch.full((1, 45, 2), -1.0), torch.zeros(1, 45, 4)
    loss = OBJECTIVE.each({"scores": scores, "coded": codes}, targets())
    p = 1 / (1 + np.exp(1))
    np.testing.assert_allclose(loss, [90 * p**2 * -log(1 - p)], rtol=1e-5)


def test_places_in_a_crowd_learn_nothing():
    scores = torch.zeros((1, 45, 2), requires_grad=True)
    codes = torch.zeros(1, 45, 4)
    OBJECTIVE.each({"scores": scores, "coded": codes}, targets((0, 0, 0.5, 0.5, 0, CROWD))).sum().backward()
    still = (scores.grad[0] == 0).all(1).numpy()
    inside = (anchors(OP)[:, :2] < 0.5).all(1)
    np.testing.assert_array_equal(still, inside)


def test_free_scores_and_codes_learn_two_objects():
    """Descent on the outputs themselves; the definition then finds what is there, and nothing else."""
    wanted = targets((0.1, 0.15, 0.5, 0.6, 1, PLAIN), (0.55, 0.5, 0.8, 0.95, 0, PLAIN))
    scores, codes = torch.full((1, 45, 2), -4.6, requires_grad=True), torch.zeros((1, 45, 4), requires_grad=True)
    optimizer = torch.optim.Adam([scores, codes], lr=0.25)
    for _ in range(70):
        optimizer.zero_grad()
        OBJECTIVE.loss({"scores": scores, "coded": codes}, wanted).backward()
        optimizer.step()
    found = detect(OP, codes[0].detach().numpy(), scores[0].detach().numpy())
    sure = found[found[:, 4] > 0.5]
    assert sorted(sure[:, 5]) == [0, 1]
    for row, one in product(sure, wanted[0, :2].numpy()):
        assert (iou(row, one) > 0.85) == (row[5] == one[4])


def test_fixed_losses_are_not_chosen():
    source = squares(8, 4)
    graph = zoo.anchor_free(backbone="mobilenet_v2:width=0.35", resolution=64, classes=2)
    for name, value in (("box_loss", "giou"), ("negatives", "focal")):
        with pytest.raises(DataError, match=f"^--{name.replace('_', '-')} is not for anchor-free detectors"):
            settled(Recipe(**{name: value}), source, Start(graph, None, None, None))
