"""Damaged annotation files: an error line or boxes that can be used, never a traceback, a hang or all of the memory.

`python -m fuzz test_boxes_fuzz FIRST COUNT` runs cases by hand; COUNT in turn are COCO, VOC, YOLO and CSV.
"""

import json
import tempfile
from functools import cache
from pathlib import Path

import numpy as np
import pytest

from boxes_files import coco, image, voc
from fuzz import damage, survive
from smallcnn.data.sources import open_source
from smallcnn.data.targets import AREA, CLASS, FLAG, Boxes
from smallcnn.errors import SmallcnnError

CASES, LONG_CASES = 200, 20_000

_WORDS = [
    b"1e999", b"NaN", b"-1", b"99999999999999999999", b"null", b"[]", b"{}", b'""', b"true", b"\xff\xfe", b"0", b"0.5",
    b"<object>", b"&amp;&#0;", b"<!DOCTYPE x>", b"<!--", b"\t\t", b"\n\n", b",,,,", b'"', b"'", b"a.jpg", b"1_0",
]  # fmt: skip
_VALUES = [
    None,
    True,
    [],
    {},
    "",
    "1",
    0,
    -1,
    1.5,
    2,
    10**30,
    float("inf"),
    float("nan"),
    "a.jpg",
    "b.jpg",
    "\ud800",
    1e-300,
]


@cache
def whole() -> dict[str, dict[str, bytes]]:
    """Format -> its files."""
    boxes = [("a.jpg", 1, [10, 4, 20, 24], {"area": 3.5, "iscrowd": 1}), ("b.jpg", 2, [8.25, 12, 8, 24])]
    outline = ("b.jpg", 1, [], {"segmentation": [[1, 2, 30, 4, 30, 40]]})
    objects = [("cat", 10, 4, 30, 28), ("dog & co".replace("&", "&amp;"), 0, 0, 64, 48, 1)]
    yaml = "path: ../x\ntrain: images\nval: images\nnames: ['cat', \"dog\", cow]\nnc: 3\n"
    table = "filename,width,height,class,xmin,ymin,xmax,ymax\na.jpg,64,48,cat,10,4,30,28\nb.jpg,64,48,dog,1,2,3,4\n"
    return {
        "coco": {"annotations.json": json.dumps(coco([*boxes, outline])).encode()},
        "voc": {
            "a.xml": voc(objects, filename="a.jpg").encode(), "b.xml": voc(objects[:1]).encode(),
            "ImageSets/Main/train.txt": b"a\n", "ImageSets/Main/val.txt": b"b\n",
        },
        "yolo": {
            "a.txt": b"0 0.5 0.5 0.25 0.25\n1 0.25 0.5 0.1 1\n", "b.txt": b"2 0.1 0.1 0.2 0.2 0.3 0.1\n",
            "data.yaml": yaml.encode(), "train.txt": b"./images/a.jpg\n", "classes.txt": b"cat\ndog\ncow\n",
        },
        "csv": {"boxes.csv": table.encode()},
    }  # fmt: skip


def rearrange(content: bytes, rng: np.random.Generator) -> bytes:
    """The text with a word put into it, or a part of it repeated or cut out."""
    at, to = sorted(int(place) for place in rng.integers(0, len(content) + 1, 2))
    match rng.integers(3):
        case 0:
            word = _WORDS[rng.integers(len(_WORDS))]
            return content[:at] + word + content[min(to, at + int(rng.integers(8))) :]
        case 1:
            return content[:at] + content[at:to] * int(rng.integers(2, 4)) + content[to:]
        case _:
            return content[:at] + content[to:]


def reshape(content: bytes, rng: np.random.Generator) -> bytes:
    """JSON with a few of its values replaced, removed or repeated: another content, always well-formed."""
    whole = json.loads(content)
    for _ in range(rng.integers(1, 4)):
        here = whole
        while here:  # to a random depth
            key = sorted(here)[rng.integers(len(here))] if isinstance(here, dict) else int(rng.integers(len(here)))
            if isinstance(here[key], dict | list) and rng.random() < 0.9:
                here = here[key]
                continue
            value = _VALUES[rng.integers(len(_VALUES))]
            match rng.integers(4):
                case 0:
                    del here[key]
                case 1 if isinstance(here, list):
                    here.insert(key, here[key])
                case _:
                    here[key] = value
            break
    return json.dumps(whole).encode()


def judge(case: int, stage: object) -> str:
    """Damages one of a format's files, as `case` says, and reads the set."""
    rng = np.random.default_rng(case)
    forms = whole()
    form = sorted(forms)[case % len(forms)]
    files = dict(forms[form])
    name = sorted(files)[rng.integers(len(files))]
    if form == "coco" and rng.random() < 0.7:
        files[name] = reshape(files[name], rng)
    else:
        for _ in range(rng.integers(1, 3)):
            files[name] = (damage if rng.random() < 0.4 else rearrange)(files[name] or b"\n", rng)
    with tempfile.TemporaryDirectory() as folder:
        root = Path(folder)
        for one in ("a.jpg", "b.jpg"):
            image(root / one)
        for one, content in files.items():
            (root / one).parent.mkdir(parents=True, exist_ok=True)
            (root / one).write_bytes(content)
        try:
            source = open_source(root)
        except SmallcnnError as error:
            line = str(error)
            if "\n" in line or len(line) > 1000 or root.name not in line:  # other letters the command escapes
                raise AssertionError(f"refused in other than one line: {line!r}") from error
            return f"{form} refused"
    check(source)
    return f"{form} read"


def check(source) -> None:
    """AssertionError unless everything in the set can be used as it is."""
    assert all(len(note) < 1000 for note in source.notes)
    for split in source.splits.values():
        if not isinstance(split.targets, Boxes):
            return  # so damaged that it is not recognised
        rows = split.targets.rows
        assert np.isfinite(rows).all()
        assert (rows[:, :2] < rows[:, 2:4]).all()
        assert (rows[:, :4] >= 0).all()
        assert (rows[:, [0, 2]] <= 64).all()
        assert (rows[:, [1, 3]] <= 48).all()
        assert (rows[:, AREA] > 0).all()
        assert set(rows[:, CLASS].astype(int)) <= set(range(len(source.classes)))
        assert set(rows[:, FLAG]) <= {0, 1, 2}
        assert split.targets.counts.sum() == len(rows)
        assert len(set(split.names)) == len(split.names) == len(split.targets.counts)


def run(count: int, first: int = 0) -> None:
    outcomes = survive("test_boxes_fuzz", first, count)
    assert sum(outcomes.values()) == count
    for form in whole():
        read, refused = outcomes[f"{form} read"], outcomes[f"{form} refused"]
        assert min(read, refused) > count // 100, outcomes


def test_damaged_annotations():
    run(CASES)


@pytest.mark.long
def test_five_thousand_damaged_files_of_each_format():
    run(LONG_CASES, CASES)
