"""The command's contract: names, JSON keys, exit codes, one clear line for a user's mistake."""

import json
import os
import re
import shutil
import stat
import subprocess
import sys
import zlib

import click
import numpy as np
import pytest

from artifacts import artifact, colour_photos
from smallcnn import onnx
from smallcnn.cli.main import COMMANDS, SYNONYMS, main, root
from smallcnn.model import shipped
from smallcnn.model.store import save

MODEL = "mobilenet_v1:width=0.25,small_input=true,variant=shallow"


@pytest.fixture(scope="module")
def files(tmp_path_factory):
    folder = tmp_path_factory.mktemp("files")
    save(artifact(), folder / "m.safetensors")
    onnx.export(artifact(), folder / "m.onnx")
    colour_photos(folder / "photos")
    return folder


# --- what each command prints ------------------------------------------------------------------------------------


def test_list(smallcnn):
    code, out, _ = smallcnn("list", "--json")
    (v1,) = [row for row in json.loads(out) if row["model"] == "mobilenet_v1"]
    assert code == 0
    assert (v1["mult_adds"], v1["parameters"]) == (568740352, 4231976)
    assert v1["options"]["variant"] == {"default": "separable", "choices": ["separable", "conv", "shallow"]}
    assert "mobilenet_v1" in smallcnn("list")[1]


@pytest.mark.parametrize(("args", "mult_adds", "parameters"), [  # architectures as published, MobileNet v1 section
    (["mobilenet_v1"], 568740352, 4231976),
    (["mobilenet_v1:width=0.25"], 41030272, 470072),
    (["mobilenet_v1", "--resolution", "128"], 186400768, 4231976),
    (["mobilenet_v1:variant=conv"], 4867293184, 29294088),
    (["mobilenet_v1:variant=shallow"], 307323392, 2887976),
])  # fmt: skip
def test_cost_json(smallcnn, args, mult_adds, parameters):
    code, out, _ = smallcnn("cost", *args, "--json")
    found = json.loads(out)
    assert code == 0
    assert (found["mult_adds"], found["parameters"]) == (mult_adds, parameters)
    assert found.keys() == {"model", "options", "input_size", "mult_adds", "parameters", "peak_activation_elements",
                            "peak_activation_bytes", "peak_activation_bytes_fused", "weight_bytes",
                            "weight_bytes_by_number", "layers"}  # fmt: skip
    assert sum(layer["mult_adds"] for layer in found["layers"]) == mult_adds


def test_cost_tables(smallcnn):
    by_type = smallcnn("cost", "mobilenet_v1")[1]
    assert "94.86%" in by_type  # Table 2 of the paper
    assert "568,740,352" in by_type
    assert "block13.pointwise.conv" in smallcnn("cost", "mobilenet_v1", "--by", "layer")[1]


def test_predict(smallcnn, files):
    photos = sorted((files / "photos").glob("*/0.png"))
    code, out, _ = smallcnn("predict", files / "m.onnx", *photos, "--json")
    found = json.loads(out)
    assert code == 0
    assert [entry["image"] for entry in found] == [str(photo) for photo in photos]
    assert all(entry.keys() == {"image", "label", "probability", "top5"} for entry in found)
    assert len(smallcnn("predict", files / "m.safetensors", *photos)[1].splitlines()) == 3


def test_predict_goes_through_folders(smallcnn, refused, files, tmp_path):
    assert len(smallcnn("predict", files / "m.onnx", files / "photos")[1].splitlines()) == 24
    (tmp_path / "._0.png").write_bytes(b"what macOS puts beside 0.png on other disks")
    assert "no images in this folder" in refused("predict", files / "m.onnx", tmp_path)


def test_predict_without_a_model_file(smallcnn, files, tmp_path, monkeypatch):
    monkeypatch.setattr(shipped, "_FOLDER", tmp_path)
    shutil.copy(files / "m.safetensors", tmp_path / "cifar10.safetensors")
    photo = files / "photos" / "red" / "0.png"
    own = smallcnn("predict", files / "m.safetensors", photo)[1]
    for args in ([photo], ["cifar10", photo]):
        code, out, err = smallcnn("predict", *args)
        assert (code, out) == (0, own)
        assert "using the bundled model tiny (blue, green, red)" in err
    assert len(smallcnn("predict", photo.parent)[1].splitlines()) == 8


def test_evaluate(smallcnn, files, tmp_path):
    plot = tmp_path / "confusion.png"
    code, out, _ = smallcnn("evaluate", files / "m.onnx", "--data", files / "photos", "--plot", plot, "--json")
    found = json.loads(out)
    assert code == 0
    assert {"top1", "top5", "images"} <= found.keys()
    assert (found["images"], found["top5"]) == (24, 1.0)
    assert (found["split"], found["part"]) == ("all", "all")
    assert plot.read_bytes().startswith(b"\x89PNG")
    assert f"top-1 {found['top1']:.2%}" in smallcnn("evaluate", files / "m.onnx", "--data", files / "photos")[1]
    for word in ("--split", "--part"):
        same = smallcnn("evaluate", files / "m.onnx", "--data", files / "photos", word, "all", "--json")[1]
        assert json.loads(same) | {"seconds": 0} == found | {"seconds": 0}


def test_bench(smallcnn, files):
    code, out, _ = smallcnn("bench", files / "m.onnx", "--seconds", "0.1", "--json")
    (row,) = json.loads(out)
    assert code == 0
    assert {"file", "engine", "precision", "threads", "median_ms", "min_ms", "max_ms", "p90_ms",
            "mult_adds_per_second", "peak_memory_bytes", "verified"} <= row.keys()  # fmt: skip
    assert row["verified"] is True
    assert "verified" in smallcnn("bench", files / "m.onnx", "--seconds", "0.1")[1]


def test_init_export_and_permissions(smallcnn, tmp_path):
    model, exported = tmp_path / "a.safetensors", tmp_path / "a.onnx"
    assert smallcnn("init", MODEL, "--resolution", 32, "--classes", 4, "--out", model)[:2] == (0, f"{model}\n")
    code, out, err = smallcnn("export", model, "--to", "onnx", "--out", exported, "--softmax")
    assert (code, out) == (0, f"{exported}\n")
    assert "agrees with the original" in err
    umask = os.umask(0)
    os.umask(umask)
    for path in (model, exported):
        assert stat.S_IMODE(path.stat().st_mode) == 0o666 & ~umask  # as any other file of the user


def test_train_resume_and_report(smallcnn, tmp_path):
    photos, out = colour_photos(tmp_path / "photos"), tmp_path / "run"
    (photos / "red" / "broken.png").write_bytes(b"not an image")
    args = ["--data", photos, "--out", out, "--resolution", 32, "--epochs", 2, "--batch-size", 8]
    code, best, err = smallcnn("train", MODEL, *args)
    assert (code, best) == (0, f"{out / 'best.safetensors'}\n")
    assert "best validation top-1" in err
    page = (out / "report.html").read_text()
    assert "<svg" in page
    assert "data:image/" in page
    assert not re.findall(r"(?:src|href)=['\"](?!data:|#)|url\((?!#)|@import", page)  # nothing is fetched
    assert smallcnn("train", "--resume", "--out", out)[0] == 0


# --- mistakes ------------------------------------------------------------------------------------------------------


def test_unknown_words_name_the_closest(refused):
    assert refused("cost", "mobilnet_v1").startswith("no model 'mobilnet_v1'; closest: mobilenet_v1")
    assert "no option 'widht'; closest: width" in refused("cost", "mobilenet_v1:widht=1")
    assert "no command 'predit'; closest: predict" in refused("predit")
    assert "'--resolutoin'" in refused("cost", "mobilenet_v1", "--resolutoin", "3")


@pytest.mark.parametrize(("typed", "meant"), [
    ("val", "evaluate"), ("test", "evaluate"), ("info", "cost"), ("summary", "cost"), ("convert", "import"),
    ("finetune", "train --from"), ("benchmark", "bench"), ("Predict", "predict"), ("EVAL", "evaluate"),
])  # fmt: skip
def test_words_of_other_tools_lead_to_the_command(refused, typed, meant):
    assert refused(typed).startswith(f"no command {typed!r}; try: smallcnn {meant}")


@pytest.mark.parametrize(("words", "offered"), [
    (["tr"], {"train"}),
    (["cost", "mobilenet_v3"], {"mobilenet_v3_large", "mobilenet_v3_small"}),
    (["train", "--resol"], {"--resolution"}),
    (["recipes", "small-im"], {"small-images"}),
    (["study", "sh"], {"shuffle"}),
    (["pull", "vgg16"], {"vgg16_torchvision"}),
])  # fmt: skip
def test_the_shell_completes(monkeypatch, capsys, words, offered):
    monkeypatch.setenv("_SMALLCNN_COMPLETE", "bash_complete")
    monkeypatch.setenv("COMP_WORDS", " ".join(["smallcnn", *words]))
    monkeypatch.setenv("COMP_CWORD", str(len(words)))
    with pytest.raises(SystemExit):
        main([])
    assert {line.partition(",")[2] for line in capsys.readouterr().out.splitlines()} == offered


def test_every_command_has_json():
    for name in COMMANDS:
        command = root.get_command(None, name)
        assert any("--json" in parameter.opts for parameter in command.params), name


@pytest.mark.parametrize("word", ["xyzzy", "convolve", "detect"])
def test_a_word_like_none_lists_the_commands(refused, word):
    assert "known: analyze, bench, boxes, compile" in refused(word)


def test_every_synonym_is_a_command_that_parses():
    for meant in SYNONYMS.values():
        name = meant.split()[0].strip(",")
        assert name in COMMANDS or name in ("--help", "--version")


@pytest.mark.parametrize(("args", "says"), [
    (["cost", "mobilenet_v1:width=0"], "width must be above 0"),
    (["cost", "mobilenet_v1:width=big"], "width must be a number, not 'big'"),
    (["cost", "mobilenet_v1:variant=deep"], "variant must be separable or conv or shallow, not 'deep'"),
    (["cost", "mobilenet_v1", "--resolution", "0"], "resolution must be"),
    (["cost", "mobilenet_v1", "--classes", "0"], "classifier: output features must be"),
    (["train", MODEL, "--data", "digits", "--out", "x", "--lr", "-1"], "lr must be above 0, not -1.0"),
    (["train", MODEL, "--data", "digits", "--out", "x", "--epochs", "none"], "'none' is not a valid integer"),
    (["train", MODEL, "--data", "digit", "--out", "x"], "named set 'digit'; closest: digits"),
    (["train", "--out", "x"], "train needs MODEL"),
    (["predict", "nowhere.onnx", "a.jpg"], "nowhere.onnx: no such file"),
    (["predict"], "no IMAGE given"),
    (["predict", "m.onnx"], "no IMAGE given"),
    (["bench", "nowhere.onnx"], "no such file"),
    (["export", "nowhere.safetensors", "--out", "x.txt"], "an ONNX file's name ends in .onnx"),
    (["train", MODEL, "--data", "", "--out", "x"], "an argument is empty"),
    (["compile"], "Missing argument FILE"),
    (["predict", "m.onnx", "a.jpg", "--coco", "a.jpg"], "a.jpg: a COCO file's name ends in .json"),
])  # fmt: skip
def test_wrong_values(refused, args, says, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    assert says in refused(*args)
    assert not list(tmp_path.iterdir())


def test_folders_that_cannot_be_learned_from(refused, tmp_path):
    data, out = tmp_path / "data", tmp_path / "out"
    data.mkdir()
    assert "no class folders" in refused("train", MODEL, "--data", data, "--out", out)
    colour_photos(tmp_path / "photos")
    (tmp_path / "photos" / "red").rename(data / "red")
    assert "only one class, 'red'" in refused("train", MODEL, "--data", data, "--out", out)
    (data / "blue").mkdir()
    assert "no images in this class folder" in refused("train", MODEL, "--data", data, "--out", out)


def test_a_run_stays_outside_its_images(refused, tmp_path):
    photos = colour_photos(tmp_path / "photos")
    before = sorted(photos.rglob("*"))
    for out in (photos, photos / "run", tmp_path / "photos" / ".." / "photos"):
        line = refused("train", MODEL, "--data", photos, "--out", out, "--resolution", "32")
        assert "inside the folder of images" in line
    assert sorted(photos.rglob("*")) == before


def test_what_a_small_set_leaves_unused_is_said(smallcnn, tmp_path):
    photos = colour_photos(tmp_path / "photos")  # 24 images, of which some are kept for validation
    args = ("train", MODEL, "--data", photos, "--resolution", "32", "--epochs", "1")
    _, _, said = smallcnn(*args, "--out", tmp_path / "a", "--batch-size", "12")
    assert "classes: blue, green, red" in said
    assert re.search(r"note: an epoch uses 12 of \d+ images; with a smaller --batch-size it uses more", said)
    _, _, said = smallcnn(*args, "--out", tmp_path / "b", "--batch-size", "1")
    assert "an epoch uses" not in said


def test_labels_in_columns(refused, files, tmp_path):
    (tmp_path / "labels.tsv").write_text("0\tred\n1\tgreen\n2\tblue\n")
    line = refused("import", files / "m.onnx", "--labels", tmp_path / "labels.tsv", "--out", tmp_path / "m.safetensors")
    assert line.endswith("labels.tsv: has columns; give one class name per line, in the order of the outputs")


def test_more_threads_than_any_machine_has(refused, files):
    photo = files / "photos" / "red" / "0.png"
    assert "threads must be at most 256, not 9999" in refused("predict", files / "m.onnx", photo, "--threads", "9999")


def test_cost_of_a_model_file(smallcnn, refused, files, tmp_path):
    counted = [json.loads(smallcnn("cost", files / name, "--json")[1]) for name in ("m.safetensors", "m.onnx")]
    assert [found["mult_adds"] for found in counted] == [2316, 2316]  # as bench says of it
    (tmp_path / "m.so").write_bytes(b"")
    assert "compiled" in refused("cost", tmp_path / "m.so")
    shutil.copy(files / "m.safetensors", tmp_path / "best.safetensors")
    assert f"its model is {tmp_path / 'best.safetensors'}" in refused("cost", tmp_path)


def png_header(width, height):
    """A PNG that claims a size and has nothing behind it."""

    def chunk(kind, content):
        checked = kind + content
        return len(content).to_bytes(4, "big") + checked + zlib.crc32(checked).to_bytes(4, "big")

    size = width.to_bytes(4, "big") + height.to_bytes(4, "big") + b"\x08\x02\x00\x00\x00"
    return b"\x89PNG\r\n\x1a\n" + chunk(b"IHDR", size) + chunk(b"IDAT", zlib.compress(b"")) + chunk(b"IEND", b"")


def test_pictures_that_are_none(refused, files, tmp_path):
    from PIL import Image

    Image.fromarray(np.random.default_rng(0).integers(0, 256, (64, 64, 3), np.uint8)).save(tmp_path / "cut.jpg")
    (tmp_path / "cut.jpg").write_bytes((tmp_path / "cut.jpg").read_bytes()[:900])
    (tmp_path / "text.jpg").write_text("hello")
    (tmp_path / "bomb.png").write_bytes(png_header(50_000, 50_000))
    (tmp_path / "empty.jpg").write_bytes(b"")
    for name, says in {"cut.jpg": "damaged", "text.jpg": "not a jpeg", "bomb.png": "decompression bomb",
                       "empty.jpg": "empty", "absent.jpg": "no such file"}.items():  # fmt: skip
        line = refused("predict", files / "m.onnx", tmp_path / name)
        assert says in line.lower()
        assert name in line


def test_a_bad_picture_does_not_lose_the_good_ones(smallcnn, files, tmp_path):
    good = sorted((files / "photos").glob("*/0.png"))
    (tmp_path / "bad.jpg").write_text("hello")
    code, out, err = smallcnn("predict", files / "m.onnx", good[0], tmp_path / "bad.jpg", good[1], "--json")
    assert code == 2
    assert [entry["image"] for entry in json.loads(out)] == [str(good[0]), str(good[1])]
    assert err.count("\n") == 1
    assert "bad.jpg" in err


def test_model_files_that_are_none(refused, files, tmp_path):
    from safetensors.numpy import save_file

    whole = (files / "m.safetensors").read_bytes()
    (tmp_path / "cut.safetensors").write_bytes(whole[: len(whole) // 2])
    save_file({"weight": np.zeros(3, np.float32)}, tmp_path / "foreign.safetensors")
    (tmp_path / "words.txt").write_text("no network")
    photo = next((files / "photos").glob("*/*.png"))
    assert "damaged" in refused("predict", tmp_path / "cut.safetensors", photo)
    assert "not smallcnn's" in refused("predict", tmp_path / "foreign.safetensors", photo)
    assert "end in .safetensors, .onnx, .so or .dll" in refused("predict", tmp_path / "words.txt", photo)


def test_places_that_cannot_be_written(refused, files, tmp_path):
    (tmp_path / "file").write_text("in the way")
    nowhere = tmp_path / "file" / "x"
    assert "cannot write" in refused("export", files / "m.safetensors", "--out", f"{nowhere}.onnx")
    assert "cannot write" in refused("init", MODEL, "--out", f"{nowhere}.safetensors")
    assert "cannot write into the run folder" in refused("train", MODEL, "--data", files / "photos", "--out", nowhere)
    assert "cannot write" in refused(
        "evaluate", files / "m.onnx", "--data", files / "photos", "--plot", f"{nowhere}.png"
    )
    assert "ends in .png" in refused("evaluate", files / "m.onnx", "--data", files / "photos", "--plot", "x.txt")
    assert (tmp_path / "file").read_text() == "in the way"


def test_labels_that_do_not_match(refused, files, tmp_path):
    colour_photos(tmp_path / "photos")
    (tmp_path / "photos" / "red").rename(tmp_path / "photos" / "crimson")
    line = refused("evaluate", files / "m.onnx", "--data", tmp_path / "photos")
    assert "labels do not match" in line


# --- without the extras, and quick to start ------------------------------------------------------------------------

WITHOUT = "import sys; sys.modules.update(dict.fromkeys(['torch', 'kornia', 'sklearn', 'matplotlib', 'tensorboard']));"


def without_extras(*args):
    code = f"{WITHOUT} from smallcnn.cli.main import main; main({[str(arg) for arg in args]!r})"
    return subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False, timeout=100)


def test_the_base_install_counts_predicts_evaluates_and_times(files):
    photo = next((files / "photos").glob("*/*.png"))
    for args in (["list"], ["cost", "mobilenet_v1"], ["predict", files / "m.safetensors", photo],
                 ["evaluate", files / "m.onnx", "--data", files / "photos"],
                 ["bench", files / "m.onnx", "--seconds", "0.1"]):  # fmt: skip
        done = without_extras(*args)
        assert done.returncode == 0, done.stderr
        assert done.stdout


@pytest.mark.parametrize("args", [
    ["train", MODEL, "--data", "photos", "--out", "run"],
    ["demo"],
    ["evaluate", "m.onnx", "--data", "photos", "--plot", "x.png"],
    ["predict", "m.safetensors", "x.png", "--engine", "torch"],
], ids=lambda args: args[0])  # fmt: skip
def test_what_needs_an_extra_names_it(files, args):
    paths = {"m.onnx", "m.safetensors", "photos"}
    done = without_extras(*[files / arg if arg in paths else arg for arg in args])
    assert done.returncode == 2
    (line,) = done.stderr.splitlines()
    assert "pip install 'smallcnn[train]'" in line


def test_help_imports_nothing_heavy():
    """Neither the list of commands nor the help of any: numpy alone takes 0.1 s."""
    code = """
import sys
from smallcnn.cli.main import COMMANDS, main
for name in ([], *([name] for name in COMMANDS)):
    try:
        main([*name, "--help"])
    except SystemExit:
        pass
    if heavy := {"numpy", "torch", "onnx", "onnxruntime", "PIL", "rich", "safetensors"} & set(sys.modules):
        sys.exit(f"{name}: {', '.join(heavy)}")
"""
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False, timeout=100)
    assert done.returncode == 0, done.stderr


def test_every_command_has_help(smallcnn):
    assert smallcnn("--help")[0] == 0
    for name in root.list_commands(click.Context(root)):
        code, out, _ = smallcnn(name, "--help")
        assert code == 0
        assert out.startswith(f"Usage: smallcnn {name}")


class OnnxRuntimeError(Exception):
    """Its exceptions are of no class of Python's."""


@pytest.mark.parametrize(
    ("error", "said"),
    [
        (PermissionError(13, "Permission denied", "photo.jpg"), "photo.jpg: Permission denied"),
        (OSError(28, "No space left on device"), "No space left on device"),
        (TimeoutError(), "TimeoutError"),
        (MemoryError(), "not enough memory; close other programs, or process less at once"),
        (np._core._exceptions._ArrayMemoryError((1 << 50,), np.dtype("u1")), "not enough memory (Unable to allocate"),
        (
            RuntimeError("[enforce fail at alloc_cpu.cpp:125] DefaultCPUAllocator: can't allocate memory: you tried"),
            "not enough memory ([enforce fail",
        ),
        (OnnxRuntimeError("std::bad_alloc"), "not enough memory (std::bad_alloc)"),
    ],
    ids=str,
)
def test_what_the_system_refuses_is_one_line(refused, monkeypatch, error, said):
    def broken(*_):
        raise error

    monkeypatch.setattr("smallcnn.zoo.names", broken)
    assert refused("list").startswith(said)


@pytest.mark.parametrize("error", [RuntimeError("a shape that does not fit"), RecursionError(), ZeroDivisionError()])
def test_a_bug_keeps_its_traceback(monkeypatch, error):
    def broken(*_):
        raise error

    monkeypatch.setattr("smallcnn.zoo.names", broken)
    with pytest.raises(type(error)):
        main(["list"])
