"""Frames of one recording stay on one side of the split, whatever names the recordings."""

import random

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from artifacts import artifact, colour_photos
from smallcnn import runtime
from smallcnn.cli.main import main
from smallcnn.data import holdout
from smallcnn.data.groups import read_groups
from smallcnn.data.sources import open_source
from smallcnn.errors import DataError
from smallcnn.evaluate import evaluate
from smallcnn.model.store import load, save

NAMES = ["a/clip1_01.jpg", "a/clip1_02.jpg", "a/clip2_01.jpg", "b/clip2_02.jpg", "b/odd.jpg"]
GROUPS = {NAMES[0]: "clip1", NAMES[1]: "clip1", NAMES[2]: "clip2", NAMES[3]: "clip2"}


def problem(given, names=NAMES):
    with pytest.raises(DataError) as caught:
        read_groups(given, names)
    assert "\n" not in str(caught.value)
    return str(caught.value)


class TestPattern:
    @pytest.mark.parametrize("pattern", [r"(clip\d+)_\d+", r"^(clip\d)", r"/(clip\d)_"])
    def test_named_by_its_group(self, pattern):
        assert read_groups(pattern, NAMES) == GROUPS

    def test_of_the_folder(self):
        assert set(read_groups(r"^([ab])/", NAMES).values()) == {"a", "b"}

    @pytest.mark.parametrize(
        ("pattern", "message"),
        [
            (
                "(clip",
                "not a regular expression (missing ), unterminated subpattern at position 0), and not a .csv file",
            ),
            ("clip", "needs one group in parentheses, which names the recording, not 0"),
            ("(clip)(1)", "needs one group in parentheses, which names the recording, not 2"),
            ("(film)", "no file name matches; they look like a/clip1_01.jpg, a/clip1_02.jpg"),
        ],
    )
    def test_refused(self, pattern, message):
        assert message in problem(pattern)


class TestTable:
    @pytest.mark.parametrize("separator", [",", ";", "\t"])
    @pytest.mark.parametrize("written", ["{0}", "photos/{0}", "{1}", "./{0}", "{0[0]}\\{1}"])
    def test_files_as_people_write_them(self, tmp_path, separator, written):
        rows = [
            ["Group", "number", "FILE"],
            *([group, "1", written.format(name, name[2:])] for name, group in GROUPS.items()),
            ["", "2", "x"],
        ]
        path = tmp_path / "groups.CSV"
        path.write_bytes(b"\xef\xbb\xbf" + "\r\n".join(separator.join(row) for row in rows).encode())
        assert read_groups(path, NAMES) == GROUPS

    @pytest.mark.parametrize(
        ("text", "message"),
        [
            ("", "the first row must have the titles file and group; it has nothing"),
            ("name,group\na,b", "the first row must have the titles file and group; it has name, group"),
            ("file,group\na/clip9.jpg,x", "row 2: 'a/clip9.jpg' names no image of the set; the set's names look like"),
            ("file,group\na/clip1_01.jpg,x\nclip1_01.jpg,y", "row 3: 'clip1_01.jpg' is in two groups, 'x' and 'y'"),
            ("file,group\n", "no rows with a file and a group"),
            ("file,group\nlip1_01.jpg,x", "row 2: 'lip1_01.jpg' names no image"),
            ("file,group\n\0,x\0", "groups.csv: "),
            (b"\xff\xfe", "not a table"),
        ],
    )
    def test_refused(self, tmp_path, text, message):
        path = tmp_path / "groups.csv"
        path.write_bytes(text if isinstance(text, bytes) else text.encode())
        assert message in problem(path)

    def test_a_name_of_two_images(self, tmp_path):
        path = tmp_path / "groups.csv"
        path.write_text("file,group\n1.jpg,x")
        assert "row 2: '1.jpg' names 2 images (a/1.jpg, b/1.jpg)" in problem(path, ["a/1.jpg", "b/1.jpg"])

    def test_no_file(self, tmp_path):
        assert problem(tmp_path / "x.csv") == f"{tmp_path / 'x.csv'}: no such file"


@st.composite
def sets(draw):
    """(labels, names, groups): groups of any size, which may hold several classes; some images are in none."""
    count = draw(st.integers(2, 60))
    labels = np.array(draw(st.lists(st.integers(0, 3), min_size=count, max_size=count)))
    groups = draw(st.lists(st.integers(-3, 12), min_size=count, max_size=count))
    names = [f"{i}.jpg" for i in range(count)]
    return labels, names, {name: f"g{group}" for name, group in zip(names, groups, strict=True) if group >= 0}


class TestCut:
    @settings(max_examples=200, deadline=None)
    @given(made=sets(), seed=st.integers(0, 5), fraction=st.floats(0.05, 0.6))
    def test_groups_stay_together_and_classes_on_both_sides(self, made, seed, fraction):
        labels, names, group_of = made
        held = set(holdout.by_groups(labels, names, group_of, seed, fraction))
        side = {}
        for i, name in enumerate(names):
            assert side.setdefault(group_of.get(name, name), i in held) == (i in held)
        for label in set(labels.tolist()):
            mine = [i for i in range(len(names)) if labels[i] == label]
            assert any(i not in held for i in mine), "every class keeps training images"

    @settings(max_examples=300, deadline=None)
    @given(made=sets(), seed=st.integers(0, 5), shuffle=st.randoms())
    def test_does_not_depend_on_the_order(self, made, seed, shuffle):
        labels, names, group_of = made
        order = list(range(len(names)))
        shuffle.shuffle(order)
        one = {names[i] for i in holdout.by_groups(labels, names, group_of, seed, 0.2)}
        mixed = [names[i] for i in order]
        assert one == {mixed[i] for i in holdout.by_groups(labels[order], mixed, group_of, seed, 0.2)}

    @settings(max_examples=50, deadline=None)
    @given(counts=st.lists(st.integers(2, 40), min_size=2, max_size=4), fraction=st.floats(0.05, 0.9))
    def test_without_groups_it_is_as_near_as_can_be(self, counts, fraction):
        labels = np.repeat(np.arange(len(counts)), counts)
        held = holdout.by_groups(labels, [str(i) for i in range(len(labels))], {}, 0, fraction)
        for label, count in enumerate(counts):
            got = int(np.sum(labels[held] == label))
            assert abs(got - min(max(count * fraction, 1), count - 1)) <= 1

    def test_recordings_of_a_real_size(self):
        """40 recordings of 5 to 60 frames in four classes: a class misses a fifth by half a recording at most."""
        rng = random.Random(0)
        frames = [(f"clip{i}", i % 4) for i in range(40) for _ in range(rng.randint(5, 60))]
        names = [f"{i}.jpg" for i in range(len(frames))]
        labels = np.array([label for _, label in frames])
        group_of = {name: clip for name, (clip, _) in zip(names, frames, strict=True)}
        for seed in range(10):
            held = holdout.by_groups(labels, names, group_of, seed, 0.2)
            for label in range(4):
                assert abs(np.sum(labels[held] == label) - 0.2 * np.sum(labels == label)) <= 60 / 2

    def test_another_seed_is_another_cut(self):
        labels, names = np.zeros(40, int), [f"{i // 2}_{i % 2}" for i in range(40)]
        group_of = {name: name.split("_")[0] for name in names}
        assert len({tuple(holdout.by_groups(labels, names, group_of, seed, 0.2)) for seed in range(5)}) == 5

    @pytest.mark.parametrize("images", [1, 7, 8, 9, 1000])
    def test_as_text_and_back(self, images):
        held = sorted(random.Random(images).sample(range(images), images // 2))
        text = holdout.as_text(held, images, "abc")
        assert holdout.from_text(text, images, "abc") == held
        for wrong in (holdout.from_text(text, images + 8, "abc"), holdout.from_text(text, images, "abd"),
                      holdout.from_text("abc:%%", images, "abc"), holdout.from_text(None, images, "abc")):  # fmt: skip
            assert wrong is None


@pytest.fixture
def frames(tmp_path):
    """Of each colour four recordings of three frames, in a folder."""
    photos = colour_photos(tmp_path / "photos", per_class=12)
    for path in photos.glob("*/*.png"):
        path.rename(path.with_name(f"clip{int(path.stem) // 3}{path.parent.name}_{int(path.stem) % 3}.png"))
    return photos


PATTERN = r"(clip\d\w+)_"


def clips(split):
    return {name.split("/")[1].split("_")[0] for name in split.names}


def test_of_a_source(frames):
    source = open_source(frames, groups=PATTERN)
    assert clips(source.splits["train"]) & clips(source.splits["val"]) == set()
    assert sorted(name.split("/")[0] for name in source.splits["val"].names) == sorted(["blue", "green", "red"] * 3)
    assert source.notes == ("36 images are in 12 groups, each on one side of the split",)
    again = open_source(frames, cut=source.cut)
    assert again.splits["val"].names == source.splits["val"].names
    assert again.cut == source.cut
    assert open_source(frames).cut == ""
    (frames / "red" / "new.png").write_bytes(b"")
    assert open_source(frames, cut=source.cut).cut == "", "of another set"


def test_a_set_with_its_own_split(frames, tmp_path):
    (tmp_path / "both").mkdir()
    frames.rename(tmp_path / "both" / "train")
    (tmp_path / "both" / "val" / "red").mkdir(parents=True)
    moved = tmp_path / "both" / "train" / "red" / "clip1red_2.png"
    moved.rename(tmp_path / "both" / "val" / "red" / moved.name)
    (note,) = open_source(tmp_path / "both", groups=PATTERN).notes
    assert note.endswith("which groups do not change; 1 groups are on both sides (clip1red)")


def run(*arguments):
    with pytest.raises(SystemExit) as ended:
        main([str(argument) for argument in arguments])
    return ended.value.code


def test_trained_resumed_and_judged(frames, tmp_path, capsys):
    out = tmp_path / "run"
    model = ["mobilenet_v1:width=0.25", "--data", frames, "--out", out, "--resolution", "32", "--epochs", "2"]
    assert run("train", *model, "--groups", PATTERN) == 0
    assert "36 images are in 12 groups" in capsys.readouterr().err.replace("\n", " ")
    held = open_source(frames, groups=PATTERN).splits["val"].names
    trained = runtime.open(out / "best.safetensors")
    seen = evaluate(trained, frames)
    assert (seen.part, list(seen.split.names), seen.doubt) == ("val", list(held), None)
    assert load(out / "best.safetensors").facts["data"]["val_images"] == len(held) == 9
    assert run("train", "--resume", "--out", out) == 0, "the pattern is not needed again"
    assert run("train", *model, "--resume") == 2, "split otherwise"
    assert "grouped differently" in capsys.readouterr().err
    (frames / "red" / "clip9red_0.png").write_bytes((frames / "red" / "clip0red_0.png").read_bytes())
    assert "give the same --groups" in evaluate(trained, frames).doubt
    again = evaluate(trained, frames, groups=PATTERN)
    assert "give the same --groups" not in again.doubt


def test_shards_keep_the_names_that_groups_go_by(frames, tmp_path):
    pytest.importorskip("webdataset")
    assert run("shard", frames, "--out", tmp_path / "shards") == 0
    one, other = (open_source(place, groups=PATTERN) for place in (frames, tmp_path / "shards"))
    assert one.splits["val"].names == other.splits["val"].names


def test_a_cut_in_a_file_is_not_trusted(frames, tmp_path):
    fingerprint = open_source(frames).fingerprint
    for cut in (3, [], f"{fingerprint}:AAAA", f"{fingerprint}:", "x" * 10):
        facts = {"fingerprint": fingerprint, "seed": 0, "val_fraction": 0.25, "cut": cut}
        save(artifact(data=facts), tmp_path / "m.safetensors")
        assert evaluate(runtime.open(tmp_path / "m.safetensors"), frames).metrics.images == 9
