"""docs/models.md and docs/papers/*.md: the table is what the package counts now, and what the pages show runs."""

import re
import shlex
from pathlib import Path

import pytest

from smallcnn import profile, zoo
from smallcnn.checkpoints.catalogue import CATALOGUE
from smallcnn.cli.main import main
from smallcnn.papers.models import MODELS

DOCS = Path(__file__).parents[2] / "docs"
MODELS_PAGE = (DOCS / "models.md").read_text("utf-8")
TABLE = re.search(r"<!-- begin: smallcnn list --markdown -->\n(.*)<!-- end -->", MODELS_PAGE, re.DOTALL).group(1)
PAGES = sorted((DOCS / "papers").glob("*.md"))
COMMANDS = [
    (page.name, line) for page in PAGES for line in re.findall(r"^    smallcnn (.*)$", page.read_text("utf-8"), re.M)
]
ROWS = {
    cells[0].strip("`"): dict(zip(("input", "mult_adds", "parameters", "published", "retrained", "import", "pull"),
                                  cells[1:], strict=True))
    for cells in ([cell.strip() for cell in line.strip("|").split("|")] for line in TABLE.splitlines()[2:])
}  # fmt: skip


def test_the_table_is_up_to_date(capsys):
    with pytest.raises(SystemExit) as caught:
        main(["list", "--markdown"])
    assert caught.value.code == 0
    assert capsys.readouterr().out == TABLE, "put what `smallcnn list --markdown` prints between the markers"


def test_every_network_has_its_default_form_in_the_table_and_a_page():
    assert set(zoo.names()) <= set(ROWS)
    _, papers = MODELS_PAGE.split("## The papers")
    assert set(re.findall(r"`(\w+)`", papers)) == set(zoo.names())
    assert {DOCS / link for link in re.findall(r"\]\((papers/.*?)\)", papers)} == set(PAGES)


@pytest.mark.parametrize(("model", "published"), [  # as printed; 100 less the error where an error is printed
    ("mobilenet_v1", "70.6 mobilenet_v1.t4"),
    ("mobilenet_v1:width=0.25", "50.6 mobilenet_v1.t6"),
    ("mobilenet_v2:width=1.4", "74.7 mobilenet_v2.t4"),
    ("mobilenet_v2:width=0.5", "65.4 mobilenet_v2.released"),  # and not that of 192 pixels or below
    ("shufflenet_v1:groups=8", "67.6 shufflenet_v1.t2"),  # error 32.4
    ("shufflenet_v1:scale=2,se=true", "75.3 shufflenet_v1.t5"),  # error 24.7
    ("effnet_cifar", "80.20 on CIFAR-10, effnet.t2"),
    ("effnet_cifar:large=true", "-"),  # the paper's has other widths
    ("effnet", "-"),
    ("squeezenet_1_0:bypass=simple", "60.4 squeezenet.t3"),
    ("alexnet", "57.2 mobilenet_v1.t9"),
    ("mobilenet_v3_small", "-"),  # the paper's has 1280 features before the classifier
    ("mobilenet_v3_small:hidden=1280", "67.4 mobilenet_v3.t3"),
])  # fmt: skip
def test_published_accuracies(model, published):
    assert ROWS[model]["published"] == published


@pytest.mark.parametrize(("model", "origins"), [  # public definitions and what differs in them
    ("alexnet", "-"),  # torchvision has one tower only
    ("alexnet:variant=one_tower", "torchvision"),
    ("googlenet", "-"),
    ("mobilenet_v1:variant=shallow", "-"),
    ("mobilenet_v2", "torchvision, timm, keras"),
    ("mobilenet_v2:first_expansion=true", "gluon"),
    ("shufflenet_v1:groups=8", "megvii"),
    ("shufflenet_v2", "torchvision"),
    ("shufflenet_v2:shuffle=released", "megvii, fastestdet"),
    ("squeezenet_1_0:bypass=simple", "-"),
    ("nasnet_a_mobile", "-"),
])  # fmt: skip
def test_origins_are_those_of_this_very_network(model, origins):
    assert ROWS[model]["import"] == origins


def test_a_file_in_the_catalogue_comes_with_an_origin():
    for model, row in ROWS.items():
        assert row["pull"] == "-" or row["import"] != "-", model
    listed = {str(zoo.parse(one.model)) for one in CATALOGUE.values()}
    assert {model for model, row in ROWS.items() if row["pull"] != "-"} == listed, "every network in the catalogue"


def test_retrained_accuracies_are_the_catalogues_and_ascend():
    reached = {name: one.top1 for name, one in CATALOGUE.items()}
    compared = 0
    for known in MODELS:
        tops = [float(one.top1) for one in known.retrained]
        assert tops == sorted(tops)
        for one in known.retrained:
            publisher, _, name = one.source.partition(" ")
            key = f"{name}_torchvision" if publisher == "torchvision" else name
            if key in reached:
                compared += 1
                assert float(one.top1) == reached[key], one
            else:
                assert publisher in ("imgclsmob", "megvii", "PaddleClas") or name == "mobilenetv1_125"
    assert compared > 12


def test_the_grid_of_mobilenet_v1():
    text = (DOCS / "papers" / "mobilenet_v1.md").read_text("utf-8")
    grid = re.findall(r"^\| ([\d.]+) \| ([\d,]+) \| (.*) \|$", text, re.MULTILINE)
    assert [width for width, _, _ in grid] == ["1.0", "0.75", "0.5", "0.25"]
    for width, parameters, cells in grid:
        for resolution, cell in zip((224, 192, 160, 128), cells.split(" | "), strict=True):
            counted = profile(zoo.mobilenet_v1(width=float(width), resolution=resolution))
            assert (f"{counted.parameters:,}", f"{counted.mult_adds:,}") == (parameters, cell)


@pytest.mark.parametrize(("page", "line"), COMMANDS, ids=lambda value: value)
def test_every_command_shown_runs(page, line, capsys):
    with pytest.raises(SystemExit) as caught:
        main(shlex.split(line))
    assert caught.value.code == 0
    assert capsys.readouterr().out


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.name)
def test_a_page_of_a_paper(page):
    text = page.read_text("utf-8")
    assert len(text.splitlines()) <= 50, "one screen"
    assert any(name == page.name for name, _ in COMMANDS)
    for target in re.findall(r"\]\(((?!http)[^)#]+)", text):
        assert (page.parent / target).exists(), target
    named = set(re.findall(r"`([a-z0-9_]+)`", text))
    for network in named & set(zoo.names()):
        missing = set(zoo.options(network)) - named
        assert not missing, f"{network}: {missing}"
