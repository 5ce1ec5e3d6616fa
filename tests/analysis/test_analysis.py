"""What is found in answers: class by class, pairs, single images, other sizes."""

from dataclasses import replace

import numpy as np
import pytest
from sklearn.metrics import precision_recall_fscore_support

from artifacts import COLOURS, artifact, colour_photos
from networks import random_weights, tiny
from smallcnn import runtime
from smallcnn.analysis.classes import class_scores, confused_pairs
from smallcnn.analysis.findings import as_dict, examine
from smallcnn.analysis.samples import least_certain, surest_mistakes
from smallcnn.analysis.sweep import at_size, sizes_around, statistics_split, sweep
from smallcnn.cost.profile import profile
from smallcnn.data.sources import open_source
from smallcnn.errors import AnswerError, FileError
from smallcnn.evaluate import evaluate
from smallcnn.image.fit import Preprocessing
from smallcnn.ir.builder import Builder
from smallcnn.model.facts import Facts, TrainedOn
from smallcnn.model.model import Model
from smallcnn.model.store import save
from smallcnn.reference.floating import answer as run
from smallcnn.report.analysis import of_sweep
from smallcnn.tasks.classification import Classification
from smallcnn.tasks.metrics import measure
from smallcnn.train.renorm import reestimate
from smallcnn.transform.adapt import with_resolution

# six images of classes a, b, c; d has none, and nothing is taken for c
LOGITS = np.log(
    np.array([
        [0.70, 0.20, 0.05, 0.05],  # a, right
        [0.10, 0.80, 0.05, 0.05],  # a, taken for b
        [0.05, 0.85, 0.05, 0.05],  # a, taken for b
        [0.30, 0.40, 0.20, 0.10],  # b, right
        [0.60, 0.20, 0.10, 0.10],  # b, taken for a
        [0.24, 0.24, 0.25, 0.27],  # c, taken for d
    ])
)  # fmt: skip
LABELS = np.array([0, 0, 0, 1, 1, 2])
CONFUSION = measure(LOGITS, LABELS).confusion


def test_scores_agree_with_scikit_learn():
    rng = np.random.default_rng(0)
    logits, labels = rng.normal(size=(300, 12)), rng.integers(0, 11, 300)  # class 11 has no image
    logits[:, 3] = -9  # and nothing is taken for class 3
    found = class_scores(measure(logits, labels).confusion, [str(i) for i in range(12)])
    want = precision_recall_fscore_support(labels, logits.argmax(1), labels=range(12), zero_division=np.nan)
    got = [[getattr(score, key) for score in found] for key in ("precision", "recall", "f1", "support")]
    np.testing.assert_allclose(np.array(got, float), np.array(want, float), rtol=1e-12)
    assert found[3].precision is None
    assert found[11].recall is None


def test_a_class_without_pictures():
    d = class_scores(CONFUSION, "abcd")[3]
    assert (d.support, d.named, d.recall, d.precision, d.f1) == (0, 1, None, 0, 0)


def test_pairs_by_hand():
    first, *others = confused_pairs(CONFUSION, LOGITS, LABELS, most=10)
    assert (first.true, first.taken, first.count, first.places) == (0, 1, 2, (1, 2))
    assert [(pair.true, pair.taken, pair.places) for pair in others] == [(1, 0, (4,)), (2, 3, (5,))]
    assert len(confused_pairs(CONFUSION, LOGITS, LABELS, most=1)) == 1


def test_samples_by_hand():
    sure = surest_mistakes(LOGITS, LABELS, most=3)
    assert [(one.place, one.true, one.taken) for one in sure] == [(2, 0, 1), (1, 0, 1), (4, 1, 0)]
    assert [one.probability for one in sure] == pytest.approx([0.85, 0.8, 0.6])
    assert [one.place for one in least_certain(LOGITS, LABELS, most=2)] == [5, 3]


@pytest.mark.parametrize(
    ("side", "sides"),
    [
        (224, [128, 160, 192, 224, 256, 288]),  # the sizes of the MobileNet paper
        (160, [96, 112, 144, 160, 176, 208]),
        (32, [20, 24, 28, 32, 36, 40]),
        (28, [16, 20, 24, 28, 32, 36]),
        (1, [1]),
    ],
)
def test_sizes_around(side, sides):
    found = sizes_around((side, side))
    assert [height for height, _ in found] == sides
    assert all(height == width for height, width in found)
    assert sizes_around((side, 224))[0][1] == 128


@pytest.fixture(scope="module")
def photos(tmp_path_factory):
    return colour_photos(tmp_path_factory.mktemp("set") / "photos", per_class=40)


def opened(artifact, folder):
    save(artifact, folder / "m.safetensors")
    return runtime.open(folder / "m.safetensors")


def colour_network(size=16):
    graph = with_resolution(tiny(), (size, size))
    weights = random_weights(graph, 3)
    return Model(graph, weights, Classification(tuple(COLOURS)), Preprocessing((size, size)))


def test_the_sweep_is_evaluation_at_each_size(photos, tmp_path):
    model = colour_network()
    net = opened(model, tmp_path)
    evaluation = evaluate(net, photos, part="val")
    found = sweep(model, evaluation, threads=1)
    assert [row.size[0] for row in found.rows] == [10, 12, 14, 16, 18, 20]
    assert (found.images, found.own_size, found.refused) == (24, (16, 16), {})
    for row in found.rows:
        resized = with_resolution(model.graph, row.size)
        assert row.mult_adds == profile(resized).mult_adds
        prepared = Preprocessing(row.size)
        pictures = [prepared.prepare(path).pixels for path in evaluation.split.images]
        logits = run(resized, model.weights, prepared.normalise(np.stack(pictures)))
        assert row.top1 == measure(logits, evaluation.split.labels).top1
    assert found.rows[3].top1 == evaluation.metrics.top1
    assert "it needs 100 images, not 24 (the evaluated images themselves)" in found.note
    p = evaluation.metrics.top1
    assert found.standard_error == pytest.approx(np.sqrt(p * (1 - p) / 24))


def test_batch_norm_is_re_estimated_at_each_size(tmp_path):
    photos = colour_photos(tmp_path / "photos", per_class=45)
    model = replace(colour_network(), facts=Facts(data=TrainedOn(fingerprint=open_source(photos).fingerprint)))
    evaluation = evaluate(opened(model, tmp_path), photos, part="val")
    found = sweep(model, evaluation, images=10, threads=1)
    assert "from 108 images (the training split)" in found.note
    assert found.images == 10
    for row in found.rows:
        again = reestimate(at_size(model, row.size), evaluation.source.splits["train"])
        some = evaluation.split.subset(np.linspace(0, 26, 10).round().astype(int).tolist())
        x = again.preprocessing.normalise(np.stack([again.preprocessing.prepare(path).pixels for path in some.images]))
        assert row.top1_reestimated == measure(run(again.graph, again.weights, x), some.labels).top1
    plain = sweep(model, evaluation, images=10, renormed=False, threads=1)
    assert [row.top1 for row in plain.rows] == [row.top1 for row in found.rows]
    assert all(row.top1_reestimated is None for row in plain.rows)


def test_a_size_at_which_the_answers_overflow_does_not_end_the_sweep(photos, tmp_path, monkeypatch):
    """As re-estimated statistics of a 4x4 MobileNet did: constant channels have no variance, and a larger map does."""

    def overflowing(resized, split, **options):
        if resized.preprocessing.size != (20, 20):
            return resized
        return replace(resized, weights=resized.weights | {"classifier.weight": np.full((3, 4), 3e38, np.float32)})

    monkeypatch.setattr("smallcnn.train.renorm.reestimate", overflowing)
    model = colour_network()
    evaluation = evaluate(opened(model, tmp_path), photos, part="all")
    found = sweep(model, evaluation, images=10, threads=1)
    assert found.refused == {}
    assert [row.top1_reestimated is None for row in found.rows] == [False] * 5 + [True]
    last = of_sweep(found).body.rpartition("<tr>")[2]
    assert last.count("<td") == 4  # the last cell is empty


def test_a_held_out_set_has_no_training_split(tmp_path):
    """A folder without splits is cut in two when it is opened; for a network trained elsewhere neither is training."""
    model = replace(colour_network(), facts=Facts(data=TrainedOn(fingerprint="of another set")))
    held_out = evaluate(opened(model, tmp_path), colour_photos(tmp_path / "unseen", per_class=40))
    split, whose = statistics_split(model, held_out)
    assert (held_out.part, split, whose) == ("all", held_out.split, "the evaluated images themselves")
    assert "from 120 images (the evaluated images themselves)" in sweep(model, held_out, images=10, threads=1).note
    colour_photos(tmp_path / "set" / "train", per_class=4)
    colour_photos(tmp_path / "set" / "val", per_class=2)
    given = evaluate(opened(model, tmp_path), tmp_path / "set")
    assert statistics_split(model, given) == (given.source.splits["train"], "the training split")


def test_a_network_of_one_resolution_says_so(photos, tmp_path):
    g = Builder(input=(14, 14, 3))
    x = g.conv(g.input, 2, kernel=3, name="stem")
    model = artifact(g.graph(g.dense(g.flatten(x, name="flatten"), 3, name="classifier"), features=x, name="flat"))
    found = sweep(model, evaluate(opened(model, tmp_path), photos, part="val"), threads=1)
    assert [row.size for row in found.rows] == [(14, 14)]
    assert set(found.refused) == {(8, 8), (10, 10), (12, 12), (16, 16), (18, 18)}
    assert all("flat has a fixed resolution, 14x14" in reason for reason in found.refused.values())
    assert "no batch norm" in found.note


def test_another_size_is_noted_in_the_facts():
    resized = at_size(colour_network(), (12, 12))
    assert resized.preprocessing.size == resized.graph.input_shape[:2] == (12, 12)
    assert resized.facts["resized_from"] == [16, 16]


def test_answers_that_are_no_numbers(photos, tmp_path):
    model = colour_network()
    model.weights["classifier.bias"][1] = np.nan
    with pytest.raises(FileError, match=r"classifier.bias has values that are infinite or not numbers"):
        opened(model, tmp_path)
    large = colour_network()  # finite weights whose sum is beyond float32
    large.weights["classifier.weight"][:] = 3e38
    with pytest.raises(AnswerError, match="its answer is not a finite number"):
        evaluate(opened(large, tmp_path), photos)


def test_one_picture_only(tmp_path):
    (tmp_path / "photos").mkdir()
    colour_photos(tmp_path / "all", per_class=1)
    (tmp_path / "all" / "red").rename(tmp_path / "photos" / "red")
    net = opened(colour_network(), tmp_path)
    evaluation = evaluate(net, tmp_path / "photos")
    found = as_dict(examine(evaluation, net.labels), sweep(colour_network(), evaluation, threads=1))
    assert [score["support"] for score in found["classes"]] == [0, 0, 1]
    assert found["calibration"]["temperature"] is None
    assert found["least_certain"][0]["picture"] == "red/0.png"
    assert found["sweep"]["images"] == 1
