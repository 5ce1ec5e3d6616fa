"""What a file may name, and that nothing else in one is ever opened, fetched or run."""

import json

import pytest
from safetensors import safe_open
from safetensors.torch import load_file, save_file

from artifacts import colour_photos
from networks import tiny
from smallcnn.data.shards.index import Index
from smallcnn.data.shards.remote import is_remote
from smallcnn.errors import DataError, FileError
from smallcnn.system.places import can_be_stored, scheme, stored
from smallcnn.train.recipe import Recipe
from smallcnn.train.run import resume, train

HARMLESS = [
    "/home/me/photos",
    "/data/x-{000..009}.tar",
    "digits",
    "https://host.org/set/index.json",
    "HTTPS://h/x.json",
]
HOSTILE = [
    "pipe:touch {mark}",
    "PIPE:touch {mark}",
    "Pipe:touch {mark} #index.json",
    " pipe:touch {mark}",
    "\tpipe:touch {mark}",
    "pi\npe:touch {mark}",
    "pipe:touch {mark} #{{000..001}}.tar",
    "pipe:touch {mark} ; cat index.json",
    "file:///etc/passwd",
    "FILE:///{mark}/index.json",
    "ftp://host/index.json",
    "s3://bucket/index.json",
    "gs://bucket/x-{{000..001}}.tar",
    "scp://host/index.json",
    "\\\\server\\share",
    "//server/share",
    "\\\\.\\pipe\\x",
    "../photos",
    "/data/../../etc",
    "photos/..",
    "..",
    ".",
    "",
    "./photos",
    "~/photos",
    "/data/photos\x00",
    "/data/\x1b[31mphotos",
    "/data/photos\n",
]


@pytest.mark.parametrize("place", HARMLESS)
def test_a_file_may_name_it(place):
    assert can_be_stored(place)
    assert stored(place, "a source", "say where") == place


@pytest.mark.parametrize("place", HOSTILE, ids=ascii)
def test_a_file_may_not_name_it(place):
    assert not can_be_stored(place.format(mark="/tmp/mark"))


@pytest.mark.parametrize("place", [None, 7, ["pipe:x"], {"a": 1}, b"/data"])
def test_what_is_no_text(place):
    with pytest.raises(FileError, match="only a command line may name"):
        stored(place, "a source", "say where")


def test_schemes():
    assert [scheme(place) for place in ("PIPE:ls", "https://h/x", "C:\\photos", "C:photos", "photos", "/a:b")] == [
        "pipe", "https", "", "", "", "",
    ]  # fmt: skip
    assert is_remote("Pipe:ls")
    assert not is_remote("C:\\photos")


@pytest.fixture(scope="module")
def run(tmp_path_factory):
    folder = tmp_path_factory.mktemp("run")
    data = colour_photos(folder / "photos", per_class=6)
    train(tiny(), data, folder / "out", recipe=Recipe(epochs=1, batch_size=4), compute="torch")
    return folder / "out", data


def altered(run, **changes):
    """Puts other settings into the checkpoint of the run, as a stranger would who sends the folder."""
    state = run / "checkpoint.safetensors"
    with safe_open(state, "pt") as file:
        metadata = file.metadata()
    settings = json.loads(metadata["settings"]) | changes
    save_file(load_file(state), state, metadata | {"settings": json.dumps(settings)})


@pytest.fixture
def strangers(run, tmp_path):
    """A copy of the run's folder, with a name that a command would touch."""
    out = tmp_path / "out"
    out.mkdir()
    for path in run[0].glob("*.safetensors"):
        (out / path.name).write_bytes(path.read_bytes())
    return out, tmp_path / "mark"


@pytest.mark.parametrize("place", HOSTILE, ids=ascii)
@pytest.mark.parametrize("setting", ["source", "root", "teacher"])
def test_a_strangers_run_runs_nothing(strangers, setting, place):
    out, mark = strangers
    place = place.format(mark=mark)
    altered(out, **{setting: {"file": place, "digest": "0"} if setting == "teacher" else place})
    before = {path.name: path.read_bytes() for path in out.iterdir()}
    with pytest.raises(FileError, match=f"only a command line may name .* with --{setting.replace('source', 'data')}$"):
        resume(out)
    assert not mark.exists()
    assert {path.name: path.read_bytes() for path in out.iterdir()} == before


def test_given_on_the_command_line_what_is_stored_does_not_matter(strangers, run):
    out, mark = strangers
    altered(out, source=f"pipe:touch {mark}", root=f"pipe:touch {mark}")
    assert resume(out, data=run[1]).finished
    assert not mark.exists()


@pytest.mark.parametrize(
    "changes",
    [
        {"source": 7}, {"root": []}, {"teacher": "file"}, {"teacher": {}}, {"start": {}}, {"recipe": []},
        {"graph": None}, {"recipe": {"epochs": "5"}}, {"recipe": {"lr": []}}, {"compute": None}, {"preprocessing": 1},
    ],
    ids=str,
)  # fmt: skip
def test_settings_of_other_kinds_are_one_line(strangers, run, changes):
    out, _ = strangers
    altered(out, **changes)
    with pytest.raises((FileError, DataError)) as caught:
        resume(out, data=run[1])
    assert str(caught.value).isprintable()


@pytest.mark.parametrize("progress", ['{"epoch": "x"}', '{"epoch": -1}', '{"history": 3}', "[]", "[" * 100_000])
def test_a_position_of_another_kind_is_one_line(strangers, run, progress):
    out, _ = strangers
    state = out / "checkpoint.safetensors"
    with safe_open(state, "pt") as file:
        metadata = file.metadata()
    save_file(load_file(state), state, metadata | {"progress": progress})
    with pytest.raises(FileError, match="checkpoint"):
        resume(out)


def test_a_command_is_given_each_time_and_not_stored(run, tmp_path):
    pytest.importorskip("webdataset")
    from smallcnn.data.shards.write import write_shards
    from smallcnn.data.sources import open_source

    source = open_source(run[1])
    write_shards(source.task, source.splits, tmp_path / "shards", shard_bytes=100_000, seed=0)
    command, out = f"pipe:cat {tmp_path}/shards/index.json", tmp_path / "run"
    recipe = Recipe(epochs=1, batch_size=4)
    result = train(tiny(), command, out, recipe=recipe, compute="torch")
    assert result.source.listing.place == command
    for path in out.glob("*.safetensors"):
        assert b"pipe:cat" not in path.read_bytes()
    with pytest.raises(FileError, match="with --data"):
        resume(out)
    assert resume(out, data=command).finished


@pytest.mark.parametrize(
    "name",
    ["pipe:touch x", "../x.tar", "..", "a/../../x.tar", "/etc/x.tar", "\\\\server\\x.tar", " x.tar", "x.tar ",
     "x.tar\n", "{a,b}.tar", "x{0..1}.tar", "https://h/x.tar", "C:x.tar", "", "~x.tar", "a\\..\\x.tar", "x\x00.tar"],
    ids=ascii,
)  # fmt: skip
def test_an_index_names_plain_files_beside_it(name):
    shard = {"file": name, "bytes": 0, "sha256": "", "names": [], "labels": [], "offsets": [], "sizes": [], "crc32": []}
    text = json.dumps({"format": "smallcnn shards 1", "classes": ["a"], "parts": {"train": [shard]}})
    with pytest.raises(DataError, match="not a plain file name"):
        Index.from_json(text, "index.json")
