"""The docs are correct: every command parses, every Python session prints what is shown, examples run."""

import doctest
import importlib
import json
import re
import shlex
import subprocess
import sys
import tomllib
from pathlib import Path
from types import ModuleType

import numpy as np
import pytest
from PIL import Image, ImageCms

import machine
import smallcnn
import tree
from profiles import ADOBE_RGB, DISPLAY_P3, grey_profile, ink_profile, matrix_profile
from smallcnn.cli.main import root
from smallcnn.image.fit import Preprocessing

ROOT = Path(__file__).parent.parent
PAGES = [ROOT / "README.md", *sorted((ROOT / "docs").glob("*.md"))]
TEXTS = [*PAGES, ROOT / "CONTRIBUTING.md", ROOT / "CHANGELOG.md", *sorted((ROOT / "docs" / "papers").glob("*.md"))]
COMMAND = re.compile(r"^(?:    |\| `)\$? ?smallcnn ([a-z].*?)(?:`.*|  #.*)?$", re.MULTILINE)
COMMANDS = [(page.name, line) for page in PAGES for line in COMMAND.findall(page.read_text(encoding="utf-8"))]


def spelled_out(line):
    """A synopsis as a command: without its optional words (in brackets), placeholders (in capitals) kept."""
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


@pytest.mark.parametrize("page", TEXTS, ids=lambda page: page.name)
def test_no_figure_is_still_to_come(page):
    assert not re.findall(r"@[A-Z_]+@|not (?:yet )?run yet", page.read_text(encoding="utf-8"))


# Words that the field does not use, or that have a plain one.
STILTED = re.compile(
    r"\b(?:pictures?|beside|anew|taken for|goes on|went on|(?<!standard )deviations?)\b", re.IGNORECASE
)


@pytest.mark.parametrize("page", TEXTS, ids=lambda page: page.name)
def test_pages_are_plain_english(page):
    prose = " ".join(page.read_text(encoding="utf-8").split())
    assert not STILTED.findall(prose)


def anchors(page):
    """The anchors of a page's headings, as GitHub makes them."""
    headings = re.findall(r"^#+ (.*)$", page.read_text(encoding="utf-8"), re.MULTILINE)
    return {re.sub(r"[^\w\- ]", "", heading.lower()).replace(" ", "-") for heading in headings}


@pytest.mark.parametrize("page", TEXTS, ids=lambda page: page.name)
def test_links_lead_somewhere(page):
    for target, anchor in re.findall(r"\]\(((?!http)[^)#]*)(?:#([^)]*))?\)", page.read_text(encoding="utf-8")):
        linked = page.parent / target if target else page
        assert linked.exists(), f"{page.name}: {target}"
        assert not anchor or anchor in anchors(linked), f"{page.name}: {target}#{anchor}"


@pytest.mark.parametrize("page", TEXTS, ids=lambda page: page.name)
def test_names_in_the_package_exist(page):
    """`smallcnn.a.b`; a name with one dot may be a key of metadata."""
    for name in re.findall(r"`smallcnn\.(\w+\.[\w.]+)", page.read_text(encoding="utf-8")):
        found = smallcnn
        for step in name.split("."):
            if isinstance(found, ModuleType) and not hasattr(found, step):
                importlib.import_module(f"{found.__name__}.{step}")
            found = getattr(found, step)


def test_the_tree_is_what_the_docstrings_say():
    assert tree.shown() == tree.tree(), "run: python tests/tree.py"


def test_the_first_page_names_every_extra_that_users_need():
    extras = tomllib.loads((ROOT / "pyproject.toml").read_text("utf-8"))["project"]["optional-dependencies"]
    page = (ROOT / "docs" / "start.md").read_text(encoding="utf-8")
    for_tests = {"detect", "dev"}
    assert [name for name in extras if name not in for_tests and f".[{name}]" not in page] == []


def test_every_room_says_what_it_is():
    for room in tree.rooms():
        for path in tree.files(room) if (tree.PACKAGE / room).is_dir() else [tree.PACKAGE / f"{room}.py"]:
            assert tree.first_line(path), f"{path} has no docstring"


def test_the_architecture_page_names_files_that_exist():
    """NAME and FORMAT stand for the new one."""
    page = (ROOT / "docs" / "architecture.md").read_text(encoding="utf-8")
    named = {name for name in re.findall(r"`([\w./]+)`", page) if "/" in name or name.endswith((".py", ".toml"))}
    assert len(named) > 50
    missing = [
        name
        for name in named
        if not re.search("NAME|FORMAT", name) and not any((folder / name).exists() for folder in (tree.PACKAGE, ROOT))
    ]
    assert sorted(missing) == []


# A thing of each kind, how the source names it, and its own files: readers of its labels or of other programs' files.
NAMED = [
    ("operator", r"\bops\.LocalResponseNorm\b", "onnx/read/spatial.py tflite/windows.py"),
    ("task", r"\btasks\.attributes import|import attributes$", "data/attributes.py data/questions.py"),
    ("engine", "openvino", "engines/openvino.py"),
    ("target", '"avx512"', ""),
]


@pytest.mark.parametrize(("thing", "named", "own"), NAMED, ids=[thing for thing, *_ in NAMED])
def test_the_architecture_page_lists_every_file_that_a_new_one_touches(thing, named, own):
    page = (ROOT / "docs" / "architecture.md").read_text(encoding="utf-8")
    section = page.partition(f"## Where a new {thing} goes")[2].partition("\n## ")[0]
    touched = {
        path.relative_to(tree.PACKAGE).as_posix()
        for path in tree.PACKAGE.rglob("*.[pch]*")
        if path.suffix in (".py", ".c", ".h") and re.search(named, path.read_text(encoding="utf-8"), re.MULTILINE)
    }
    assert len(touched) > 3
    assert sorted(touched - set(own.split()) - set(re.findall(r"`([\w./]+)`", section))) == []


def test_the_graph_page_builds_a_network():
    text = (ROOT / "docs" / "graph.md").read_text(encoding="utf-8")
    code = text[text.index("    from smallcnn import Builder") : text.index("`features` is the end")]
    scope = {}
    exec(re.sub(r"^    ", "", code, flags=re.MULTILINE), scope)
    assert scope["graph"].output_shape == (10,)


def page_code():
    """The code block of docs/files.md."""
    text = (ROOT / "docs" / "files.md").read_text(encoding="utf-8")
    code = re.search(r"    import io, json, numpy, onnxruntime\n(?:    .*\n|\n)+", text).group()
    return re.sub(r"^    ", "", code, flags=re.MULTILINE)


def test_the_files_page_reads_a_model_without_smallcnn(tmp_path):
    from artifacts import artifact
    from smallcnn import onnx, runtime, zoo

    graph = zoo.mobilenet_v1(width=0.25, resolution=128, classes=3)
    onnx.export(artifact(graph), tmp_path / "model.onnx")
    noise = np.random.default_rng(0).integers(0, 256, (20, 30, 3), np.uint8)
    Image.fromarray(noise).resize((300, 200), Image.Resampling.BICUBIC).save(tmp_path / "photo.jpg", quality=95)
    code = "import sys; sys.modules['smallcnn'] = None\n" + page_code()
    done = subprocess.run(
        [sys.executable, "-c", code], cwd=tmp_path, capture_output=True, text=True, check=False, timeout=100
    )
    assert done.returncode == 0, done.stderr
    label, *logits = done.stdout.split()
    net = runtime.open(tmp_path / "model.onnx")
    expected = net.logits(net.preprocessing.prepare(tmp_path / "photo.jpg").pixels[None])[0]
    # rounding of the printed digits, and sums that the two sessions may add in another order
    np.testing.assert_allclose(np.array(logits, float), expected, atol=1e-5 * np.abs(expected).max())
    assert label == net.labels[expected.argmax()]


def turned(orientation):
    """EXIF that tells a reader to turn the image."""
    exif = Image.Exif()
    exif[0x0112] = orientation
    return exif


NOISE = Image.fromarray(np.random.default_rng(0).integers(0, 256, (12, 16, 4), np.uint8)).resize(
    (96, 64), Image.Resampling.BICUBIC
)
CLEAR = NOISE.convert("RGB").quantize(16)
CLEAR.info["transparency"] = 3
WIDE = np.asarray(NOISE.convert("L"), np.uint16) * 257
SRGB = ImageCms.ImageCmsProfile(ImageCms.createProfile("sRGB")).tobytes()
INKS = ink_profile(lambda c, m, y, k: (0 if k else 100 - 25 * c - 30 * m - 5 * y, 0, 0))
KINDS = {
    "colour": (NOISE.convert("RGB"), "PNG", {}),
    "small JPEG": (NOISE.convert("RGB"), "JPEG", {}),
    "grey": (NOISE.convert("L"), "PNG", {}),
    "1 bit": (NOISE.convert("1"), "PNG", {}),
    "palette": (NOISE.convert("RGB").quantize(16), "PNG", {}),
    "palette, one colour transparent": (CLEAR, "PNG", {}),
    "palette with alpha": (NOISE.quantize(16), "PNG", {}),
    "transparent": (NOISE, "PNG", {}),
    "transparent WebP": (NOISE, "WEBP", {}),
    "grey, transparent": (NOISE.convert("LA"), "PNG", {}),
    "16 bits": (Image.fromarray(WIDE), "PNG", {}),
    "16 bits, one value transparent": (Image.fromarray(WIDE), "PNG", {"transparency": int(WIDE[20, 30])}),
    "12 bits in 16": (Image.fromarray(WIDE >> 4), "TIFF", {}),
    "CMYK": (NOISE.convert("CMYK"), "TIFF", {}),
    "Adobe's CMYK": (NOISE.convert("CMYK"), "JPEG", {}),
    "GIF": (NOISE.convert("RGB"), "GIF", {}),
    "Display P3": (NOISE.convert("RGB"), "PNG", {"icc_profile": matrix_profile(*DISPLAY_P3)}),
    "Display P3, transparent": (NOISE, "PNG", {"icc_profile": matrix_profile(*DISPLAY_P3)}),
    "Adobe RGB, palette": (NOISE.convert("RGB").quantize(16), "PNG", {"icc_profile": matrix_profile(*ADOBE_RGB)}),
    "grey with a curve": (NOISE.convert("L"), "PNG", {"icc_profile": grey_profile(1.8)}),
    "inks with a profile": (NOISE.convert("CMYK"), "TIFF", {"icc_profile": INKS}),
    "sRGB by a profile": (NOISE.convert("RGB"), "PNG", {"icc_profile": SRGB}),
    **{f"turned, {n}": (NOISE.convert("RGB"), "JPEG", {"exif": turned(n)}) for n in range(1, 9)},
}


@pytest.mark.filterwarnings("ignore::smallcnn.errors.ImageNote")
@pytest.mark.parametrize("channels", [1, 3])
@pytest.mark.parametrize("kind", KINDS)
def test_the_files_page_prepares_as_smallcnn_does(tmp_path, kind, channels):
    image, form, options = KINDS[kind]
    image.save(tmp_path / "image", form, **options)
    scope = {}
    exec(page_code().partition("session = ")[0], scope)
    for preprocessing in (
        Preprocessing((24, 32), (0.5,) * channels, (0.5,) * channels),
        Preprocessing((56, 40), (0.5,) * channels, (0.5,) * channels, crop=1, interpolation="lanczos"),
        Preprocessing((23, 31), (0.5,) * channels, (0.5,) * channels, fit="stretch", crop=0.7),
        Preprocessing((61, 40), (0.2,) * channels, (0.5,) * channels, fit="letterbox", crop=1.0),
        Preprocessing((40, 61), (0.8,) * channels, (0.5,) * channels, fit="letterbox", crop=0.9),
    ):
        got = scope["prepare"](tmp_path / "image", json.loads(preprocessing.to_json()))
        want = preprocessing.prepare(tmp_path / "image").pixels
        assert (got.dtype, got.shape) == (want.dtype, want.shape)
        np.testing.assert_allclose(got.astype(int), want, atol=2 if kind == "sRGB by a profile" else 0)


CLASSIFIERS = {"own_network.py": "16", "resnet20.py": "8"}
"""Their epochs here. detector_in_c.py runs in tests/train/test_train_detector.py, apply_delta.py in tests/delta."""


@pytest.mark.parametrize("example", CLASSIFIERS)
def test_examples_run(example):
    program = machine.program(ROOT / "examples" / example)
    done = subprocess.run(
        [sys.executable, "-c", program, CLASSIFIERS[example]], capture_output=True, text=True, check=False, timeout=250
    )
    assert done.returncode == 0, done.stderr
    accuracy = float(re.search(r"top-1 ([\d.]+)%", done.stdout).group(1))
    assert accuracy > 90  # after a part of 40 epochs; chance is 10 %
