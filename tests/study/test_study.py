"""Studies as data: the papers' figures, the networks and their costs, and what the arithmetic of the table gives."""

import json
import math
from pathlib import Path

import pytest
import torch
import torch.nn.functional as F
from test_study_running import STUDY, write_bars

from smallcnn import module, profile
from smallcnn.errors import SmallcnnError
from smallcnn.report import study as page
from smallcnn.study import catalogue
from smallcnn.study.catalogue import STUDIES
from smallcnn.study.resnet import resnet20
from smallcnn.study.results import Line, Outcome, Spread, spread

ROWS = [(study, row) for study in STUDIES.values() for row in study.rows]
IDS = [f"{study.name}/{row.name}" for study, row in ROWS]

# typed from the papers a second time; errors as accuracies
PUBLISHED = {
    "effnet-table2": {
        "baseline": 82.78, "effnet-large": 85.02, "mobilenet": 77.48, "shufflenet": 77.30, "effnet": 80.20,
        "mobilenet-large": 78.18, "shufflenet-large": 77.90,
    },
    "narrow-or-shallow": {"0.75-mobilenet": 68.4, "shallow-mobilenet": 65.3},
    "depthwise-or-full": {"full": 71.7, "separable": 70.6},
    "shuffle": {
        "g-1": 100 - 57.1, "g-2": 100 - 56.8, "g-3": 100 - 55.0, "g-4": 100 - 54.2, "g-8": 100 - 52.7,
        "g-3-no-shuffle": 100 - 56.3, "g-8-no-shuffle": 100 - 56.5,
    },
    "bottleneck": {},
    "width-and-resolution": {
        "1-at-32": 70.9, "1-at-27": 70.0, "1-at-23": 68.0, "1-at-18": 65.2,
        "0.75-at-32": 68.4, "0.75-at-27": 67.2, "0.75-at-23": 65.3, "0.75-at-18": 62.1,
        "0.5-at-32": 63.3, "0.5-at-27": 61.7, "0.5-at-23": 59.1, "0.5-at-18": 56.3,
        "0.25-at-32": 49.8, "0.25-at-27": 47.7, "0.25-at-23": 45.5, "0.25-at-18": 41.5,
    },
    "resnet20": {"resnet-20": 100 - 8.75},
    "distillation": {},
}  # fmt: skip


@pytest.mark.parametrize("name", STUDIES)
def test_published_figures(name):
    shown = {row.name: float(row.published) for row in STUDIES[name].rows if row.published}
    assert shown == pytest.approx(PUBLISHED[name], abs=1e-9)


@pytest.mark.parametrize(("study", "row"), ROWS, ids=IDS)
def test_every_row_builds(study, row):
    grey = row.build(classes=7, channels=1)
    assert (grey.input_shape, grey.output_shape) == ((row.resolution, row.resolution, 1), (7,))
    assert row.images_per_second > 1


@pytest.mark.parametrize("study", STUDIES.values(), ids=STUDIES)
def test_rows_have_names_of_their_own(study):
    assert len({row.name for row in study.rows}) == len(study.rows)


def mult_adds(name):
    return {row.name: row.cost().mult_adds for row in STUDIES[name].rows}


def test_effnets_networks_cost_what_table_2_prints():
    printed = {  # FLOPs, two per Mult-Add; what else they count makes up to 5 % (ShuffleNet)
        "baseline": 80.3e6, "effnet-large": 79.8e6, "mobilenet": 5.8e6, "shufflenet": 4.7e6, "effnet": 11.4e6,
        "mobilenet-large": 11.6e6, "shufflenet-large": 11.1e6,
    }  # fmt: skip
    assert {name: 2 * count for name, count in mult_adds("effnet-table2").items()} == pytest.approx(printed, rel=0.055)


def mobilenet_v1(width, side, blocks, full=False):
    """Mult-Adds of MobileNet v1 from its Table 1, first layer with stride 1, ten classes."""
    inside = int(32 * width)
    total = side * side * 27 * inside
    for unscaled, stride in blocks:
        out, side = int(unscaled * width), math.ceil(side / stride)
        total += side * side * (9 * inside * out if full else 9 * inside + inside * out)
        inside = out
    return total + 10 * inside


TABLE_1 = [(64, 1), (128, 2), (128, 1), (256, 2), (256, 1), (512, 2), *[(512, 1)] * 5, (1024, 2), (1024, 1)]
SHALLOW = [block for i, block in enumerate(TABLE_1) if not 6 <= i <= 10]


def test_mobilenets_cost_what_the_formula_says():
    assert mult_adds("narrow-or-shallow") == {
        "0.75-mobilenet": mobilenet_v1(0.75, 32, TABLE_1), "shallow-mobilenet": mobilenet_v1(1, 32, SHALLOW),
        "0.375-mobilenet": mobilenet_v1(0.375, 32, TABLE_1), "0.5-shallow-mobilenet": mobilenet_v1(0.5, 32, SHALLOW),
    }  # fmt: skip
    assert mult_adds("depthwise-or-full") == {
        "full": mobilenet_v1(0.25, 32, TABLE_1, full=True), "separable": mobilenet_v1(0.25, 32, TABLE_1),
        "separable-as-costly": mobilenet_v1(0.75, 32, TABLE_1),
    }  # fmt: skip
    assert mult_adds("width-and-resolution") == {
        f"{width:g}-at-{side}": mobilenet_v1(width, side, TABLE_1)
        for width in (0.25, 0.5, 0.75, 1)
        for side in (32, 27, 23, 18)
    }


def test_what_is_said_to_cost_the_same_does():
    pair = mult_adds("narrow-or-shallow")
    assert pair["0.75-mobilenet"] == pytest.approx(pair["shallow-mobilenet"], rel=0.07)
    assert pair["0.375-mobilenet"] == pytest.approx(pair["0.5-shallow-mobilenet"], rel=0.07)
    layers = mult_adds("depthwise-or-full")
    assert layers["full"] == pytest.approx(layers["separable-as-costly"], rel=0.07)
    shuffles = mult_adds("shuffle")
    assert all(shuffles[f"g-{g}"] == shuffles[f"g-{g}-no-shuffle"] for g in (2, 3, 4, 8))
    assert len(set(mult_adds("bottleneck").values())) == 1
    assert max(mult_adds("resnet20"), key=mult_adds("resnet20").get) == "resnet-20"


def test_resnet20_is_as_large_as_its_table_says():
    graph = resnet20()
    cost = profile(graph)
    # 3x3 convolutions: stem, 6 at 32x32x16, then twice: one that halves and widens, 5 at the new size; dense 64 x 10
    macs = 32**2 * 9 * 3 * 16 + 6 * 32**2 * 9 * 16**2
    macs += 16**2 * 9 * (16 * 32 + 5 * 32**2) + 8**2 * 9 * (32 * 64 + 5 * 64**2) + 640
    weights = 9 * (3 * 16 + 6 * 16**2 + 16 * 32 + 5 * 32**2 + 32 * 64 + 5 * 64**2) + 650
    norms = 2 * (7 * 16 + 6 * 32 + 6 * 64)
    assert (cost.mult_adds, cost.parameters) == (macs, weights + norms) == (40_551_040, 269_722)


def test_resnet20_computes_what_the_paper_draws():
    graph = resnet20()
    net = module.to_module(graph, seed=1).eval()
    state = net.state_dict()

    def conv(x, name, stride=1):
        x = F.conv2d(x, state[f"{name}.conv.weight"], stride=stride, padding=1)
        values = [state[f"{name}.bn.{key}"] for key in ("running_mean", "running_var", "weight", "bias")]
        return F.batch_norm(x, *values, eps=1e-5)

    picture = torch.randn(2, 3, 32, 32, generator=torch.Generator().manual_seed(0))
    x = F.relu(conv(picture, "stem"))
    for stage in (1, 2, 3):
        for block in (1, 2, 3):
            stride = 2 if stage > 1 and block == 1 else 1
            y = conv(F.relu(conv(x, f"stage{stage}_{block}.first", stride)), f"stage{stage}_{block}.second")
            x = x[:, :, ::stride, ::stride]
            x = F.relu(F.pad(x, (0, 0, 0, 0, 0, y.shape[1] - x.shape[1])) + y)
    expected = F.linear(x.mean((2, 3)), state["classifier.weight"], state["classifier.bias"])
    with torch.inference_mode():
        torch.testing.assert_close(net(picture), expected, rtol=1e-4, atol=1e-4)  # float32 over 20 layers


def test_mean_and_sample_deviation():
    found = spread([0.80, 0.82, 0.87])  # mean 83; squares of -3, -1, 4: 26; half of it 13
    assert (found.mean, found.deviation, found.n) == pytest.approx((83, math.sqrt(13), 3))
    assert str(found) == "83.00 ± 3.61"
    assert spread([0.8125]) == Spread(81.25, None, 1)
    assert str(spread([0.8125])) == "81.25"
    assert spread([]) is None


def outcome(row, seed, top1, **other):
    return Outcome(row=row.name, seed=seed, top1=top1, **{
        "best_top1": 0.9, "ema_top1": None, "test_images": 100, "train_images": 900, "mult_adds": 1_234_567,
        "parameters": 89_000, "seconds": 60.0, "data": "some", "pictures": "f00", "recipe": {"epochs": 1, "seed": seed},
    } | other)  # fmt: skip


def test_the_table():
    study = STUDIES["shuffle"]
    first, second, third = study.rows[:3]
    lines = [
        Line(first, (outcome(first, 0, 0.50), outcome(first, 1, 0.52))),
        Line(second, (outcome(second, 0, 0.40, ema_top1=0.45),)),
        Line(third, ()),
    ]
    heads, rows = page.table(study, lines)
    published = "ImageNet top-1, % (another data set)"
    assert heads == [
        "network",
        "test top-1, %",
        "n",
        "best on validation",
        "averaged",
        published,
        "Mult-Adds",
        "parameters",
    ]
    # 50 and 52: the deviation is the root of (1 + 1) / 1
    assert rows[0] == ["g=1", "51.00 ± 1.41", "2", "90.00 ± 0.00", "-", "42.9", "1,234,567", "89,000"]
    assert rows[1] == ["g=2, no shuffle", "40.00", "1", "90.00", "45.00", "-", "1,234,567", "89,000"]
    hours = 3 * 1 * 49_000 / third.images_per_second / 3600
    assert rows[2] == ["g=2", f"not run yet; {hours:.1f} hours", "0", "-", "-", "43.2", "3,070,848", "62,662"]
    text = page.markdown(study, lines).splitlines()
    assert text[2] == "| g=1 | 51.00 ± 1.41 | 2 | 90.00 ± 0.00 | - | 42.9 | 1,234,567 | 89,000 |"


def test_no_such_study():
    with pytest.raises(SmallcnnError, match="no study 'shufle'; closest: shuffle"):
        catalogue.find("shufle")


# --- the command -------------------------------------------------------------------------------------------------


def test_the_list(smallcnn):
    code, out, _ = smallcnn("study", "--json")
    listed = {entry["study"]: entry for entry in json.loads(out)}
    assert code == 0
    assert listed.keys() == PUBLISHED.keys()
    found = listed["effnet-table2"]
    assert found["rows"] == list(PUBLISHED["effnet-table2"])
    runs = found["seeds"] * found["epochs"] * 49_000  # of 50,000; 2 % are kept for validation
    seconds = sum(runs / row.images_per_second for row in STUDIES["effnet-table2"].rows)
    assert found["hours"] == pytest.approx(seconds / 3600)
    assert "effnet-table2" in smallcnn("study")[1]


def test_a_study_before_it_is_run(smallcnn):
    code, out, _ = smallcnn("study", "effnet-table2", "--json")
    shown = json.loads(out)
    assert code == 0
    assert {row["row"]: float(row["published"]) for row in shown["rows"]} == PUBLISHED["effnet-table2"]
    assert all(row["top1"] is None and row["runs"] == [] for row in shown["rows"])
    code, out, _ = smallcnn("study", "bottleneck", "--markdown")
    assert code == 0
    assert out.startswith("| network | test top-1, % | n | best on validation | Mult-Adds | parameters |\n| --- ")
    assert out.count("not run yet; ") == 4


def test_a_study_of_the_command(smallcnn, monkeypatch, tmp_path_factory, tmp_path):
    bars = write_bars(tmp_path_factory.mktemp("set") / "bars.npz")
    monkeypatch.setitem(STUDIES, "tiny", STUDY)
    args = ["study", "tiny", "--out", tmp_path, "--seeds", "1", "--row", "own-graph"]
    code, out, err = smallcnn(*args, "--data", bars, "--epochs", "1", "--compute", "torch")
    assert code == 0
    assert "run 1 of 1: Own graph, seed 0" in err
    stored = json.loads((tmp_path / "results.json").read_text())
    (done,) = stored["rows"][0]["runs"]
    assert f"{100 * done['top1']:.2f}" in out
    before = {path: path.stat().st_mtime_ns for path in tmp_path.rglob("*")}
    assert json.loads(smallcnn("study", "tiny", "--out", tmp_path, "--table", "--json")[1]) == stored
    assert {path: path.stat().st_mtime_ns for path in tmp_path.rglob("*")} == before, "looking writes nothing"
    assert "<svg" in (tmp_path / "plot.svg").read_text()
    page = (tmp_path / "report.html").read_text()
    assert f"{100 * done['top1']:.2f}" in page
    assert "not run yet" in page
    assert "epochs: 1\n" in page


def test_what_the_command_refuses(refused, tmp_path):
    assert refused("study", "shufle") == "no study 'shufle'; closest: shuffle"
    assert refused("study", "shuffle", "--data", "digits") == "a study needs --out DIR"
    assert refused("study", "shuffle", "--out", tmp_path) == (
        "a study needs --data SOURCE; --table shows the results so far without it"
    )
    assert refused("study", "shuffle", "--epochs", 3) == "a study needs --out DIR"
    assert refused("study", "--out", tmp_path) == "no study NAME given; `smallcnn study` lists them"
    assert refused("study", "shuffle", "--out", tmp_path, "--table", "--seeds", 2).startswith("--table shows the ")
    assert refused("study", "shuffle", "--out", tmp_path / "none", "--table") == f"{tmp_path / 'none'}: no such folder"


# --- the page of the docs ----------------------------------------------------------------------------------------


@pytest.mark.parametrize("study", STUDIES.values(), ids=STUDIES)
def test_the_page_states_the_cost(study):
    text = (Path(__file__).parents[2] / "docs" / "studies.md").read_text(encoding="utf-8")
    figures = f"{len(study.rows)} | {study.seeds} x {study.recipe.epochs} | {study.hours():.1f} |"
    assert any(line.startswith(f"| `{study.name}` |") and line.endswith(figures) for line in text.splitlines()), figures
