"""The loss of detectors by its formula, image by image and anchor by anchor."""

from itertools import product

import numpy as np
import pytest
import torch

from smallcnn.data.targets import CLASS, CROWD, NO_BOX, PLAIN
from smallcnn.errors import DataError
from smallcnn.image.geometry import Seen
from smallcnn.reference import detection
from smallcnn.tasks.detection import Detection
from smallcnn.train.anchors import IGNORED, Anchors
from smallcnn.train.detecting import DetectionObjective
from smallcnn.train.recipe import Recipe
from squares import detect

CPU = torch.device("cpu")
TASK = Detection(("cat", "dog", "owl"))


def batch(op, seed=0):
    """Outputs and objects of three images: with two objects, with one and a crowd, with none."""
    rng = np.random.default_rng(seed)
    columns = 3 + op.background
    outputs = {
        "coded": rng.normal(0, 1, (3, op.anchor_count, 4)).astype(np.float32),
        "scores": rng.normal(0, 2, (3, op.anchor_count, columns)).astype(np.float32),
    }
    objects = np.zeros((3, 3, 7), np.float32)
    objects[:, :, CLASS] = NO_BOX
    objects[0, :2] = [[0.1, 0.1, 0.4, 0.35, 2, 0, PLAIN], [0.5, 0.5, 0.95, 0.9, 0, 0, PLAIN]]
    objects[1, :2] = [[0.3, 0.2, 0.6, 0.5, 1, 0, PLAIN], [0.6, 0.0, 1.0, 0.5, 0, 0, CROWD]]
    return outputs, objects


def log_loss(row, label, op, smoothing, focal):
    """Loss of one anchor's scores; `label` is a class of objects or None for the background."""
    row = row.astype(np.float64)
    column = (0 if op.background else None) if label is None else label + op.background
    if op.score == "softmax":
        probability = np.exp(row - row.max()) / np.exp(row - row.max()).sum()
        loss = -np.log(probability[column])
        if label is not None:
            loss = (1 - smoothing) * loss - smoothing * np.log(probability).mean()
        return (0.75 if label is None else 0.25) * (1 - probability[column]) ** 2 * loss if focal else loss
    total = 0.0
    for i, value in enumerate(row):
        target, probability = float(i == column), 1 / (1 + np.exp(-value))
        if label is not None:
            target = target * (1 - smoothing) + smoothing / 2
        loss = -target * np.log(probability) - (1 - target) * np.log(1 - probability)
        total += (0.25 * target + 0.75 * (1 - target)) * abs(probability - target) ** 2 * loss if focal else loss
    return total


def box_loss(op, code, box, number, kind):
    if kind == "smooth_l1":
        wanted = Anchors(op, CPU).encoded(torch.tensor(box[None, :4]), torch.tensor([number]))[0].numpy()
        off = np.abs(code.astype(np.float64) - wanted)
        return np.where(off < 1, off**2 / 2, off - 0.5).sum()
    codes = np.zeros((op.anchor_count, 4), np.float32)
    codes[number] = code
    a, b = detection.decoded(op, codes)[number].astype(np.float64), box[:4].astype(np.float64)
    shared = np.prod(np.clip(np.minimum(a[2:], b[2:]) - np.maximum(a[:2], b[:2]), 0, None))
    hull = np.prod(np.maximum(a[2:], b[2:]) - np.minimum(a[:2], b[:2]))
    union = np.prod(a[2:] - a[:2]) + np.prod(b[2:] - b[:2]) - shared
    return 1 - shared / union + (hull - union) / hull


def by_formula(op, outputs, objects, recipe):
    found = []
    owners = Anchors(op, CPU).owners(torch.from_numpy(objects)).numpy()
    for coded, scores, rows, mine in zip(*outputs.values(), objects, owners, strict=True):
        focal, smoothing = recipe.negatives == "focal", recipe.label_smoothing
        loss, background, taken = 0.0, [], 0
        for i, owner in enumerate(mine):
            if owner >= 0:
                taken += 1
                loss += log_loss(scores[i], int(rows[owner, CLASS]), op, smoothing, focal)
                loss += box_loss(op, coded[i], rows[owner], i, recipe.box_loss)
            elif owner != IGNORED:
                background.append(log_loss(scores[i], None, op, smoothing, focal))
        kept = len(background) if focal else max(3 * taken, 3)
        loss += sum(sorted(background, reverse=True)[:kept])
        found.append(loss / max(taken, 1))
    return np.array(found), owners


@pytest.mark.parametrize(("score", "background"), [("sigmoid", False), ("sigmoid", True), ("softmax", True)])
@pytest.mark.parametrize(("negatives", "kind"), list(product(["mined", "focal"], ["smooth_l1", "giou"])))
@pytest.mark.parametrize("smoothing", [0.0, 0.1])
def test_loss_by_formula(score, background, negatives, kind, smoothing):
    op = detect(score=score, background=background, clip=False)
    recipe = Recipe(negatives=negatives, box_loss=kind, label_smoothing=smoothing)
    outputs, objects = batch(op)
    want, owners = by_formula(op, outputs, objects, recipe)
    assert (owners >= 0).sum(1).tolist()[2] == 0
    assert (owners == IGNORED).sum(1).tolist()[1] > 0
    aim = DetectionObjective(TASK, recipe, op, CPU)
    given = {name: torch.from_numpy(value).requires_grad_() for name, value in outputs.items()}
    loss = aim.loss(given, torch.from_numpy(objects))
    assert loss.item() == pytest.approx(want.mean(), rel=1e-5)
    loss.backward()
    assert all(bool(value.grad.isfinite().all()) for value in given.values())
    assert not given["scores"].grad[torch.from_numpy(owners == IGNORED)].any()
    assert not given["coded"].grad[torch.from_numpy(owners < 0)].any()


def test_parts_of_a_batch_add_up():
    op = detect()
    aim = DetectionObjective(TASK, Recipe(label_smoothing=0), op, CPU)
    outputs, objects = batch(op)
    given, targets = {name: torch.from_numpy(value) for name, value in outputs.items()}, torch.from_numpy(objects)
    parts = [aim.loss({name: value[[i]] for name, value in given.items()}, targets[[i]]).item() for i in range(3)]
    assert aim.loss(given, targets).item() == pytest.approx(np.mean(parts), rel=1e-6)


def test_scores_of_perfect_answers_and_of_none():
    op = detect(score="sigmoid", background=False, most=5)
    aim = DetectionObjective(TASK, Recipe(label_smoothing=0), op, CPU)
    _, objects = batch(op)
    seen = [Seen((60, 80), (48, 48), (0, 0, 80, 60))] * 3  # pixels of images 80 wide and 60 high
    labels = objects.astype(np.float64)
    labels[:, :, :4] *= [80, 60, 80, 60]
    labels[:, :, 5] = (labels[:, :, 2] - labels[:, :, 0]) * (labels[:, :, 3] - labels[:, :, 1])
    targets = torch.from_numpy(objects)
    nothing = {"coded": torch.zeros(3, op.anchor_count, 4), "scores": torch.full((3, op.anchor_count, 3), -9.0)}
    scores = aim.scores(aim.judged(nothing, targets, seen), labels)
    assert scores["map"] == 0
    assert scores["loss"] > 1
    owners = Anchors(op, CPU).owners(targets)
    perfect = {name: value.clone() for name, value in nothing.items()}
    for image, number in (owners >= 0).nonzero().tolist():
        row = targets[image, owners[image, number]]
        perfect["coded"][image, number] = Anchors(op, CPU).encoded(row[None, :4], torch.tensor([number]))[0]
        perfect["scores"][image, number, int(row[CLASS])] = 9.0
    scores = aim.scores(aim.judged(perfect, targets, seen), labels)
    assert scores["map"] == pytest.approx(1)
    assert scores["map50"] == pytest.approx(1)
    assert scores["loss"] < 0.02
    assert "map_large" not in scores  # no object is that large, so nothing determines it
    assert all(np.isfinite(value) for value in scores.values())


@pytest.mark.parametrize("change", [{"score": "none"}, {"score": "softmax", "background": False}])
def test_scores_that_cannot_be_learned_are_refused(change):
    with pytest.raises(DataError, match="trained with sigmoid scores"):
        DetectionObjective(TASK, Recipe(), detect(**change), CPU)
