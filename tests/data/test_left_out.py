"""What lies among images: folders that programs make are skipped at every level, and what is left out is counted."""

import json
import os
import re
import tarfile
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from artifacts import artifact, colour_photos
from smallcnn.cli.main import main
from smallcnn.data.folder import images_in
from smallcnn.data.left_out import LeftOut, is_skipped
from smallcnn.data.sources import open_source
from smallcnn.errors import ImageError
from smallcnn.model.store import save

MADE_BY_PROGRAMS = """
    @eaDir @EADIR thumbs Thumbs THUMBS thumbnails _thumbs @__thumb .thumbnails __MACOSX lost+found LOST.DIR .git .svn
    CVS $RECYCLE.BIN $Recycle.Bin RECYCLER #recycle #snapshot @Recycle .Trash-1000 .Trashes .ipynb_checkpoints
    __pycache__ .picasaoriginals .AppleDouble .Spotlight-V100 FOUND.000 @tmp .@__thumb node_modules
    """.split()  # noqa: SIM905
MADE_BY_PROGRAMS += ["System Volume Information", "SYSTEM VOLUME INFORMATION", "Temporary Items"]
CLASSES = "thumb thumbsucker cat @ # $ $5 git trash cvs_pharmacy 7 __init lost found macosx pc recycle".split()  # noqa: SIM905


@pytest.mark.parametrize("name", MADE_BY_PROGRAMS)
def test_made_by_programs(name):
    assert is_skipped(name)


@pytest.mark.parametrize("name", CLASSES)
def test_classes(name):
    assert not is_skipped(name)


def image(path, seed=0):
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.fromarray(np.random.default_rng(seed).integers(0, 256, (9, 9, 3), np.uint8)).save(path)


def fill(root, skipped):
    """Two classes of images, with the folder `skipped` and images in it at every level."""
    for name in ("a", "b"):
        for i in range(3):
            image(root / name / f"{i}.png", i)
            for folder in (root / skipped / name, root / name / skipped, root / name / "deep" / skipped):
                image(folder / f"{i}.png", i)
        image(root / name / "deep" / "4.png", 4)
    (root / "a" / "notes.TXT").touch()
    (root / "b" / "._0.png").write_bytes(b"AppleDouble")


def packed(root):
    path = root.with_suffix(".tar")
    with tarfile.open(path, "w") as tar:
        tar.add(root, "set")
    return path


@pytest.mark.parametrize("skipped", ["@eaDir", "thumbs", "__MACOSX", ".thumbnails", "System Volume Information"])
@pytest.mark.parametrize("splits", [False, True])
@pytest.mark.parametrize("archive", [False, True])
def test_at_every_level(tmp_path, skipped, splits, archive):
    root = tmp_path / "set"
    if splits:
        fill(root / "train", skipped)
        fill(root / "val", skipped)
        image(root / skipped / "train" / "a" / "0.png")
    else:
        fill(root, skipped)
    source = open_source(packed(root) if archive else root)
    assert source.classes == ("a", "b")
    below = [f"{split}/" for split in ("train", "val")] if splits else [""]
    names = [f"{part}{c}/{i}.png" for part in below for c in "ab" for i in (0, 1, 2, "deep/4")]
    assert sorted(source.everything().names) == sorted(names)
    assert source.left_out.as_dict() == {
        "files": {".txt": len(below), "hidden": len(below)},
        "folders": {skipped: len(below) * 5 + splits},
    }
    assert len(source.notes) == 1


def test_the_line():
    left_out = LeftOut()
    assert left_out.line() == ""
    for name in ["a/1.txt", "a/2.TXT", "b/3.mov", "b/README", "b/x.\x1b[31m", ".DS_Store"]:
        left_out.file(Path(name))
    for name in ("a/@eaDir", "b/@eaDir", "b/.git"):
        left_out.folder(Path(name))
        left_out.folder(Path(name))
    assert left_out.line() == (
        "left out 6 files: 2 .txt, 1 .mov, 1 hidden, 1 with an odd suffix, 1 without suffix; skipped 3 folders that "
        "programs make (@eaDir, .git), by name: rename one that is a class"
    )
    assert left_out.as_dict()["folders"] == {"@eaDir": 2, ".git": 1}


@pytest.mark.skipif(not hasattr(os, "mkfifo"), reason="this system has no named pipes")
def test_images_in_a_folder(tmp_path):
    fill(tmp_path, "thumbs")
    os.mkfifo(tmp_path / "a" / "pipe.jpg")
    (tmp_path / "a" / "round").symlink_to(tmp_path)
    found, left_out = images_in(tmp_path)
    names = [f"{c}/{i}.png" for c in "ab" for i in (0, 1, 2, "deep/4")]
    assert [path.relative_to(tmp_path).as_posix() for path in found] == names
    assert left_out.as_dict()["files"] == {
        ".txt": 1,
        "hidden": 1,
        "linking to a folder": 1,
        "special (pipe, socket or device)": 1,
    }
    (tmp_path / "empty").mkdir()
    (tmp_path / "empty" / "x.mov").touch()
    with pytest.raises(ImageError, match=r"empty: no images in this folder \(left out 1 file: 1 \.mov\)$"):
        images_in(tmp_path / "empty")


LINE = "left out 2 files: 1 .mov, 1 .txt; skipped 1 folder that programs make (@eaDir)"
MODEL = "mobilenet_v1:width=0.25"


@pytest.fixture
def photos(tmp_path):
    photos = colour_photos(tmp_path / "photos")
    (photos / "red" / "notes.txt").touch()
    (photos / "film.mov").touch()
    image(photos / "blue" / "@eaDir" / "0.png")
    save(artifact(), tmp_path / "m.safetensors")
    return photos


@pytest.mark.parametrize(
    "arguments",
    [
        ["evaluate", "{m}", "--data", "{photos}"],
        ["analyze", "{m}", "--data", "{photos}", "--sweep", "0"],
        ["predict", "{m}", "{photos}"],
        ["shard", "{photos}", "--out", "{out}"],
        ["train", MODEL, "--data", "{photos}", "--out", "{out}", "--epochs", "1", "--resolution", "32"],
    ],
    ids=lambda arguments: arguments[0],
)
def test_every_command_counts(arguments, photos, tmp_path, capsys):
    if arguments[0] in ("train", "shard"):
        pytest.importorskip("webdataset")
    places = {"m": tmp_path / "m.safetensors", "photos": photos, "out": tmp_path / "out"}
    with pytest.raises(SystemExit) as ended:
        main([argument.format(**places) for argument in arguments])
    assert ended.value.code == 0
    assert LINE in re.sub(r"\s+", " ", capsys.readouterr().err)


def test_in_json(photos, tmp_path, capsys):
    for command, *more in (["evaluate"], ["analyze", "--sweep", "0"]):
        with pytest.raises(SystemExit):
            main([command, str(tmp_path / "m.safetensors"), "--data", str(photos), "--json", *more])
        told = json.loads(capsys.readouterr().out)["left_out"]
        assert told == {"files": {".mov": 1, ".txt": 1}, "folders": {"@eaDir": 1}}
