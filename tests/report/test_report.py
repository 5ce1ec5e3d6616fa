import dataclasses
import json
import re

import numpy as np
import pytest

from artifacts import artifact, colour_photos
from networks import tiny
from pages import Page
from smallcnn import runtime
from smallcnn.bench.bench import bench
from smallcnn.bench.rows import Row
from smallcnn.cost.profile import profile
from smallcnn.data.sources import open_source
from smallcnn.errors import FileError
from smallcnn.evaluate import evaluate
from smallcnn.model.store import save
from smallcnn.report import charts as plots
from smallcnn.report import network
from smallcnn.report import run as report
from smallcnn.train.epochs import Epoch
from smallcnn.train.recipe import Recipe
from smallcnn.train.run import train

RECORDS = [
    {"epoch": i, "train_loss": 1 / i, "val_loss": 2 / i, "train_top1": 0.5, "val_top1": 0.4, "seconds": 1.0,
     "images_per_second": 10.0}
    for i in (1, 2, 3)
]  # fmt: skip
HISTORY = [Epoch.from_json(record) for record in RECORDS]


@pytest.fixture
def page(tmp_path):
    save(artifact(note="<script>alert(1)</script>"), tmp_path / "m.safetensors")
    net = runtime.open(tmp_path / "m.safetensors")
    photos = colour_photos(tmp_path / "photos", per_class=3)
    source = open_source(photos)
    report.write(
        tmp_path / "report.html",
        "a <title> & more",
        [("98 %", "of <everything>")],
        [
            report.curves(HISTORY, "top1"),
            network.accuracy(evaluate(net, photos), net, "photos"),
            network.predictions(net, source.everything(), source.classes),
            network.cost(profile(artifact().graph)),
            network.latency(bench([net.path], seconds=0.05)),
            network.facts(net, ["smallcnn train x > y"]),
        ],
    )
    return (tmp_path / "report.html").read_text(encoding="utf-8")


def test_the_page_is_one_well_formed_file(page):
    words = "".join(Page(page).words)
    for heading in ("Training", "Accuracy", "Predictions", "Cost", "Speed", "How this was made"):
        assert heading in words
    assert "a <title> & more" in words
    assert page.count("<script") == 1  # its own; the one in the facts is escaped
    assert "alert(1)" in words
    assert not re.findall(r"""(?:src|href)=['"](?!data:|#)""", page)


def test_every_plot_and_picture_is_inside(page):
    assert page.count("<svg") == 4
    assert len(re.findall(r"<img [^>]*src='data:image/", page)) == 9


def test_the_report_of_a_run(tmp_path):
    photos = colour_photos(tmp_path / "photos", per_class=10)
    data = {"name": "photos", "fingerprint": open_source(photos).fingerprint, "seed": 0, "val_fraction": 0.2}
    save(artifact(data=data), tmp_path / "best.safetensors")
    (tmp_path / "log.jsonl").write_text("".join(f"{json.dumps(record)}\n" for record in RECORDS))
    text = report.of_run(tmp_path, str(photos)).read_text(encoding="utf-8")
    headings = re.findall("<h2>(.*?)</h2>", text)
    assert headings == [
        "Training", "Accuracy", "Classes", "Most confused", "Most confident errors", "Least certain",
        "Calibration", "Input size", "Cost", "How this was made",
    ]  # fmt: skip
    assert "6 images of photos (val)" in "".join(Page(text).words)


@pytest.mark.parametrize(("name", "plain"), [
    ("mobilenet_v1:width=0.5", "mobilenet_v1 0.5"), ("resnet20", "resnet20"),
    ("mobilenet_v3:variant=small,width=0.75", "mobilenet_v3 small 0.75"),
    ("mobilenet_v1:width=0.25,separable=false", "mobilenet_v1 0.25, not separable"),
    ("shufflenet_v1:groups=3", "shufflenet_v1, groups 3"), ("my:net", "my:net"), ("", ""), ("a:b=", "a:b="),
])  # fmt: skip
def test_a_title_has_the_plain_name(name, plain):
    assert network.plain_name(name) == plain


def test_the_report_shows_what_the_network_learned_from(tmp_path):
    """Its first images, named by their class; the page is the same each time it is written."""
    photos = colour_photos(tmp_path / "photos", per_class=10)
    (photos / "red").rename(photos / "<b>red")
    run = train(tiny(), photos, tmp_path / "run", recipe=Recipe(epochs=1, augment="photo", mirror=True), workers=1)
    text = report.of_run(run.folder, str(photos)).read_text(encoding="utf-8")
    section = text[text.index("<h2>Training images") : text.index("<h2>Accuracy")]
    assert section.count("<figure class=plain") == 24
    assert set(re.findall("<figcaption>(.*?)</figcaption>", section)) == {"blue", "green", "&lt;b&gt;red"}
    assert "<b>red" not in text
    assert re.search("<h1>tiny on photos</h1><p class=details>tiny, input 8x8x3, 3 classes; best", text)
    again = report.of_run(run.folder, str(photos)).read_text(encoding="utf-8")
    assert section == again[again.index("<h2>Training images") : again.index("<h2>Accuracy")]


def test_wide_tables_and_figures_scroll_by_themselves(page):
    """On a telephone a section would otherwise scroll with its words, or the page with everything."""
    for start in re.finditer("<(?:table|svg)", page):
        assert re.search("<div class=(?:wide|'wide tall') tabindex=0>$", page[: start.start()])


def test_wrong_answers_are_marked(page):
    right, wrong = page.count("<figure class=right"), page.count("<figure class=wrong")
    assert right + wrong == 9
    assert wrong == len(re.findall("<figcaption>[^<]*, is ", page))


@pytest.mark.parametrize("suffix", [".png", ".svg", ".pdf"])
def test_plots_are_written_in_the_format_of_their_name(tmp_path, suffix):
    plots.save(plots.confusion_matrix(np.eye(3, dtype=int), ("a", "b", "c")), tmp_path / f"x{suffix}")
    starts = {".png": b"\x89PNG", ".svg": b"<?xml", ".pdf": b"%PDF"}
    assert (tmp_path / f"x{suffix}").read_bytes().startswith(starts[suffix])


def test_many_classes_are_drawn_without_names():
    figure = plots.confusion_matrix(np.eye(200, dtype=int), [f"class {i}" for i in range(200)])
    assert figure.get_size_inches().max() < 20
    assert not figure.axes[0].texts


def test_names_that_would_be_formulas():
    """A file, a layer or a class may be called so; two files of the same name are two rows."""
    name = "a$b^^{$"
    row = Row(
        **{field.name: 1 for field in dataclasses.fields(Row)} | {"file": f"{name}.onnx", "engine": "onnxruntime"}
    )
    assert len(plots.latency([row, row]).axes[0].patches) == 2
    layers = profile(artifact().graph)
    layers = dataclasses.replace(layers, layers=tuple(dataclasses.replace(one, name=name) for one in layers.layers))
    for figure in (
        plots.latency([row, row]),
        plots.cost_per_layer(layers),
        plots.confusion_matrix(np.eye(1, dtype=int), [name]),
    ):
        assert "<svg" in plots.svg(figure)
        assert name in figure.axes[0].get_yticklabels()[0].get_text()


def test_a_plot_with_a_strange_name(tmp_path):
    with pytest.raises(FileError, match=r"ends in \.png, \.svg or \.pdf"):
        plots.check_plot(tmp_path / "x.jpeg")


def test_averaged_weights_have_their_own_curve():
    averaged = [
        Epoch.from_json(record | {"ema_val_loss": 1.0, "ema_val_top1": 0.3 + record["epoch"] / 10})
        for record in RECORDS
    ]
    loss, top1 = plots.curves(averaged, "top1").axes
    assert [line.get_label() for line in loss.lines] == ["train", "val", "val, averaged weights"]
    np.testing.assert_allclose(top1.lines[2].get_ydata(), [40, 50, 60])
    assert len(plots.curves(HISTORY, "top1").axes[0].lines) == 2


def test_training_images_with_their_objects():
    """Sides are fractions of the input; rows of padding are not drawn."""
    from smallcnn.image.draw import colour
    from smallcnn.report.objects import with_objects
    from smallcnn.tasks.objects import NO_BOX

    target = np.array([[0.25, 0.5, 0.75, 1, 1, 0.25, 0], [0, 0, 1, 1, NO_BOX, 0, 0]], np.float32)
    for channels in (1, 3):
        drawn = with_objects(np.full((40, 80, channels), 90, np.uint8), target)
        assert drawn.shape == (40, 80, 3)
        rows, columns = np.nonzero((drawn == colour(1)).all(-1))
        assert (columns.min(), rows.min(), columns.max() + 1, rows.max() + 1) == (20, 20, 60, 40)
