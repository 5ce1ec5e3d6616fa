"""What the docs say can be typed: every command parses, every Python line marked as a session gives what is printed."""

import doctest
import re
import shlex
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

import machine
from smallcnn.cli.main import root

ROOT = Path(__file__).parent.parent
PAGES = [ROOT / "README.md", *sorted((ROOT / "docs").glob("*.md"))]
COMMAND = re.compile(r"^(?:    |\| `)\$? ?smallcnn ([a-z].*?)(?:`.*|  #.*)?$", re.MULTILINE)
COMMANDS = [(page.name, line) for page in PAGES for line in COMMAND.findall(page.read_text(encoding="utf-8"))]


def spelled_out(line):
    """Synopses show what may be left out in brackets, and words in capitals for what the user fills in."""
    line = re.sub(r"\[(?:recipe options|-.*?)\]", "", line)
    line = re.sub(r"\s*\.\.\.", "", line)
    return line.replace("R --", "128 --") if line.endswith("R") else line


@pytest.mark.parametrize(("page", "line"), COMMANDS, ids=lambda value: value[:60])
def test_every_command_shown_parses(page, line):
    name, *args = shlex.split(spelled_out(line))
    command = root.get_command(None, name)
    assert command is not None, f"{page}: no command {name}"
    command.make_context(name, args)  # raises on an option that does not exist, or a value of the wrong kind


def test_the_pages_show_commands():
    assert {page for page, _ in COMMANDS} >= {"README.md", "training.md", "bench.md", "files.md", "models.md"}


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.name)
def test_sessions_give_what_they_print(page):
    failed, _ = doctest.testfile(str(page), module_relative=False)
    assert failed == 0


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.name)
def test_no_figure_is_still_to_come(page):
    assert not re.findall(r"@[A-Z_]+@", page.read_text(encoding="utf-8"))


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.name)
def test_links_lead_somewhere(page):
    for target in re.findall(r"\]\(((?!http)[^)#]+)\)", page.read_text(encoding="utf-8")):
        assert (page.parent / target).exists(), f"{page.name}: {target}"


def test_the_graph_page_builds_a_network():
    text = (ROOT / "docs" / "graph.md").read_text(encoding="utf-8")
    code = text[text.index("    from smallcnn import Builder") : text.index("`features` is the end")]
    scope = {}
    exec(re.sub(r"^    ", "", code, flags=re.MULTILINE), scope)
    assert scope["graph"].output_shape == (10,)


def test_the_files_page_reads_a_model_without_smallcnn(tmp_path):
    from PIL import Image

    from artifacts import artifact
    from smallcnn import onnx, runtime, zoo

    graph = zoo.mobilenet_v1(width=0.25, resolution=128, classes=3)
    onnx.export(artifact(graph), tmp_path / "model.onnx")
    noise = np.random.default_rng(0).integers(0, 256, (20, 30, 3), np.uint8)
    Image.fromarray(noise).resize((300, 200), Image.Resampling.BICUBIC).save(tmp_path / "photo.jpg", quality=95)
    text = (ROOT / "docs" / "files.md").read_text(encoding="utf-8")
    code = re.search(r"    import json, numpy, onnxruntime\n(?:    .*\n|\n)+", text).group()
    code = "import sys; sys.modules['smallcnn'] = None\n" + re.sub(r"^    ", "", code, flags=re.MULTILINE)
    done = subprocess.run(
        [sys.executable, "-c", code], cwd=tmp_path, capture_output=True, text=True, check=False, timeout=100
    )
    assert done.returncode == 0, done.stderr
    label, *logits = done.stdout.split()
    net = runtime.open(tmp_path / "model.onnx")
    expected = net.logits(net.preprocessing.prepare(tmp_path / "photo.jpg")[None])[0]
    # a pixel may round to the grey level beside it: 1/255 of the range, on some pixels
    np.testing.assert_allclose(np.array(logits, float), expected, atol=0.01 * np.abs(expected).max())
    assert label == net.labels[expected.argmax()]


@pytest.mark.parametrize("example", sorted((ROOT / "examples").glob("*.py")), ids=lambda path: path.name)
def test_examples_run(example):
    done = subprocess.run(
        [sys.executable, "-c", machine.program(example), "16"], capture_output=True, text=True, check=False, timeout=250
    )
    assert done.returncode == 0, done.stderr
    accuracy = float(re.search(r"top-1 ([\d.]+)%", done.stdout).group(1))
    assert accuracy > 90  # 16 of 40 epochs; a guess is right once in ten
