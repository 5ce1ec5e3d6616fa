import json
import pickle
from contextlib import suppress
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from safetensors.numpy import load_file, save_file

from artifacts import artifact
from networks import every_op, tiny
from smallcnn import zoo
from smallcnn.errors import FileError
from smallcnn.ir.builder import Builder
from smallcnn.ir.types import Grid
from smallcnn.model.model import Model
from smallcnn.model.store import load, save
from smallcnn.tasks.classification import Classification

GRAPHS = [tiny(), every_op(), zoo.mobilenet_v1(width=0.25, resolution=32, channels=1, classes=4)]


@pytest.fixture
def path(tmp_path) -> Path:
    return tmp_path / "model.safetensors"


def saved(path: Path, tensors: dict[str, np.ndarray] | None = None, **metadata: str | None) -> Path:
    """The tiny network's file with these tensors, and metadata entries replaced or, if None, left out."""
    save(artifact(), path)
    entries = {f"smallcnn.{key}": value for key, value in metadata.items()}
    merged = header(path)["__metadata__"] | entries
    tensors = dict(artifact().weights) if tensors is None else tensors
    save_file(tensors, path, {key: value for key, value in merged.items() if value is not None})
    return path


def header(path: Path) -> dict:
    """The JSON at the head of a .safetensors file, behind its length in 8 bytes."""
    content = path.read_bytes()
    return json.loads(content[8 : 8 + int.from_bytes(content[:8], "little")])


def refused(path: Path) -> str:
    with pytest.raises(FileError) as caught:
        load(path)
    message = str(caught.value)
    assert message.startswith(f"{path}: "), "the message names the file"
    assert message.isprintable(), "one line"
    return message.removeprefix(f"{path}: ")


# --- there and back ---


def test_equal_content_is_equal_bytes(path):
    """The library alone wrote the metadata in another order each time, also within a process."""
    made = artifact(recipe="digits", seed=3)
    turned = replace(made, weights=dict(reversed(made.weights.items())))
    contents = set()
    for each in (made, turned) * 6:
        save(each, path)
        contents.add(path.read_bytes())
    assert len(contents) == 1
    keys = list(header(path))
    assert keys == sorted(keys)
    assert list(header(path)["__metadata__"]) == sorted(header(path)["__metadata__"])
    assert int.from_bytes(path.read_bytes()[:8], "little") % 8 == 0  # tensors stay aligned


@pytest.mark.parametrize("graph", GRAPHS, ids=lambda graph: graph.name)
def test_round_trip_is_bitwise(graph, path):
    before = artifact(graph, recipe="digits", seed=3, accuracy={"top1": 0.75, "images": 100}, note="Zürich\n")
    save(before, path)
    after = load(path)
    assert (after.graph, after.task, after.preprocessing) == (before.graph, before.task, before.preprocessing)
    assert after.facts == before.facts
    assert [(name, value.tobytes()) for name, value in after.weights.items()] == [
        (name, value.tobytes()) for name, value in before.weights.items()
    ]
    assert all(value.dtype == np.float32 for value in after.weights.values())


@pytest.fixture
def integers() -> Model:
    """A small network of whole numbers: scales for each of 3 and for each of 2 outputs, and one for all."""
    g = Builder(input=(4, 4, 3))
    x = g.conv(g.input, 3, kernel=1, number="int8", grid=Grid((0.1, 0.2, 2e-38), (0,) * 3), bias=False, name="conv")
    x = g.conv(x, 2, kernel=1, number="int8", grid=Grid((0.4, 0.5), (0, 0)), bias=False, name="two")
    y = g.dense(g.global_pool(x, name="pool"), 3, number="int8", grid=Grid((0.3,), (0,)), bias=False, name="fc")
    graph = g.graph(y, features=x, name="integers")
    return artifact(graph)


def test_scales_are_stored_as_a_tensor(path, integers):
    """Every bit comes back; as text they took more than the weights of a small network."""
    save(integers, path)
    stored = header(path)
    graph = json.loads(stored["__metadata__"]["smallcnn.graph"])
    assert load_file(path)["scales"].tobytes() == np.array([0.1, 0.2, 2e-38, 0.4, 0.5], np.float32).tobytes()
    assert [node.get("grid") for node in graph["nodes"]] == [None, None, None, None, {"scale": [0.300000012]}]
    assert load(path).graph == integers.graph
    assert load(path).weights.keys() == integers.weights.keys()


def test_scales_in_the_graph_are_read(path, integers):
    """As files had them before they were a tensor: with all digits, zeros, and all attributes."""
    save(integers, path)
    text = json.dumps(json.loads(integers.graph.to_json()), indent=1).replace("0.100000001", "0.10000000149011612")
    text = text.replace('"out": 3', '"out": 3, "bias": false, "groups": 1', 1)
    entries = header(path)["__metadata__"] | {"smallcnn.graph": text}
    save_file(dict(integers.weights), path, entries)
    assert load(path).graph == integers.graph


@pytest.mark.parametrize(
    ("scales", "message"),
    [
        (np.ones(4, np.float32), "two: weights of 'int8' need a grid"),
        (np.ones(6, np.float32), "more scales than its weights have outputs"),
        (np.zeros(5, np.float32), "conv: a scale must be a number above 0, not 0.0"),
        (np.ones((5, 1), np.float32), "'scales' is stored as F32 (5, 1), not as a vector of F32"),
        (np.ones(5), "'scales' is stored as F64 (5,), not as a vector of F32"),
        (np.float32(1), "'scales' is stored as F32 (), not as a vector of F32"),
    ],
    ids=str,
)
def test_scales_that_do_not_fit(path, integers, scales, message):
    save(integers, path)
    save_file(load_file(path) | {"scales": np.asarray(scales)}, path, header(path)["__metadata__"])
    assert refused(path).startswith(message)


def test_scales_of_a_network_that_has_none(path):
    assert refused(saved(path, with_tensor("scales", F32 + 1))) == "more scales than its weights have outputs"


def test_odd_values_and_labels_survive(path):
    weights = dict(artifact().weights)
    odd = np.array([np.nan, -0.0, np.inf], np.float32)
    weights["classifier.bias"] = odd
    labels = ("日本", 'a, b\t"c"', "")
    save(replace(artifact(), weights=weights, task=Classification(labels)), path)
    assert load(path).labels == labels
    assert load(path).weights["classifier.bias"].tobytes() == odd.tobytes()


def test_views_are_stored_by_value(path):
    """A transposed or strided array has its numbers elsewhere in memory."""
    weights = dict(artifact().weights)
    want = weights["classifier.weight"]
    weights["classifier.weight"] = np.asfortranarray(want)
    weights["classifier.bias"] = np.repeat(weights["classifier.bias"], 2)[::2]
    save(replace(artifact(), weights=weights), path)
    assert np.array_equal(load(path).weights["classifier.weight"], want)
    assert np.array_equal(load(path).weights["classifier.bias"], artifact().weights["classifier.bias"])


def test_what_the_file_holds(path):
    """Format 2. If this test fails, files that people have saved can no longer be read."""
    save(artifact(epochs=2), path)
    stored = header(path)
    metadata = stored.pop("__metadata__")
    assert {name: (entry["dtype"], tuple(entry["shape"])) for name, entry in stored.items()} == {
        name: ("F32", weight.shape) for name, weight in tiny().weights.items()
    }
    assert metadata.pop("smallcnn.format") == "2"
    assert {key: json.loads(value) for key, value in metadata.items()} == {
        "smallcnn.graph": json.loads(tiny().to_json()),
        "smallcnn.task": {"kind": "classification", "labels": ["blue", "green", "red"], "ending": "softmax"},
        "smallcnn.preprocessing": {
            "size": [8, 8], "mean": [0.485, 0.456, 0.406], "std": [0.229, 0.224, 0.225], "crop": 0.875,
            "interpolation": "bilinear",
        },
        "smallcnn.facts": {"epochs": 2},
    }  # fmt: skip


# --- parts that do not fit each other ---


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"task": Classification(("a", "b"))}, r"2 labels for an output of shape \(3,\)"),
        ({"task": Classification(("a",) * 4)}, r"4 labels for an output of shape \(3,\)"),
        ({"weights": {}}, r"weights do not fit tiny: 12 missing \(stem.conv.weight, .*\)"),
        ({"graph": every_op()}, "weights do not fit every_op: .* missing .*; .* surplus .*; .* of a different shape"),
        (
            {"preprocessing": replace(artifact().preprocessing, size=(8, 9))},
            r"preprocessing to \(8, 9, 3\) for an input of shape \(8, 8, 3\)",
        ),
        (
            {"preprocessing": replace(artifact().preprocessing, mean=(0.5,), std=(0.5,))},
            r"preprocessing to \(8, 8, 1\) for an input of shape \(8, 8, 3\)",
        ),
    ],
    ids=lambda value: next(iter(value)) if isinstance(value, dict) else "",
)
def test_parts_that_do_not_fit(changes, message):
    with pytest.raises(FileError, match=f"^{message}"):
        replace(artifact(), **changes)


def without(name: str) -> dict[str, np.ndarray]:
    return {key: value for key, value in artifact().weights.items() if key != name}


def with_tensor(name: str, value: np.ndarray) -> dict[str, np.ndarray]:
    return dict(artifact().weights) | {name: value}


F32 = np.zeros(5, np.float32)


@pytest.mark.parametrize(
    ("tensors", "message"),
    [
        (without("stem.bn.bias"), "weights do not fit tiny: 1 missing (stem.bn.bias)"),
        (with_tensor("ema.x\n", F32), r"weights do not fit tiny: 1 surplus ('ema.x\n')"),
        (
            without("stem.bn.bias") | {"stem.norm.bias": F32, "classifier.bias": F32},
            "weights do not fit tiny: 1 missing (stem.bn.bias); 1 surplus ('stem.norm.bias'); "
            "1 of a different shape (classifier.bias is (5,), not (3,))",
        ),
        (with_tensor("classifier.bias", np.zeros(3)), "'classifier.bias' is stored as F64, not F32"),
        (with_tensor("classifier.bias", np.zeros(3, np.float16)), "'classifier.bias' is stored as F16, not F32"),
        (with_tensor("classifier.bias", np.zeros(3, np.int8)), "'classifier.bias' is stored as I8, not F32"),
    ],
    ids=lambda value: value[:60] if isinstance(value, str) else "",
)
def test_tensors_that_do_not_fit(path, tensors, message):
    assert refused(saved(path, tensors)) == message


def test_a_type_numpy_lacks_is_named(path, content):
    """bfloat16, by changing the header: half as wide, so twice as many."""
    old = b'"classifier.bias":{"dtype":"F32","shape":[3]'
    new = b'"classifier.bias":{"dtype":"BF16","shape":[6]'
    assert old in content
    length = int.from_bytes(content[:8], "little")
    text = content[8 : 8 + length].replace(old, new)
    path.write_bytes(len(text).to_bytes(8, "little") + text + content[8 + length :])
    assert refused(path) == "'classifier.bias' is stored as BF16, not F32"


# --- files that are not ours, or no longer whole ---


def task(labels: str) -> dict[str, str]:
    """Metadata of a classifier with these labels, as JSON."""
    return {"task": f'{{"kind": "classification", "ending": "softmax", "labels": {labels}}}'}


@pytest.mark.parametrize(
    ("metadata", "message"),
    [
        ({"graph": None}, "a .safetensors file, but not smallcnn's: it holds weights without a graph"),
        ({"format": "4"}, "written in format '4', this smallcnn reads '1', '2' and '3'"),
        ({"format": "3"}, "it has no tensor 'text'"),
        ({"format": None}, "not smallcnn's: its metadata has no smallcnn.format"),
        ({"task": None}, "not smallcnn's: its metadata has no smallcnn.task"),
        ({"format": "1"}, "not smallcnn's: its metadata has no smallcnn.labels"),
        ({"preprocessing": None}, "not smallcnn's: its metadata has no smallcnn.preprocessing"),
        ({"facts": None}, "not smallcnn's: its metadata has no smallcnn.facts"),
        ({"graph": "{"}, "not the JSON of a graph: "),
        ({"graph": tiny().to_json().replace("conv", "konv")}, "stem.konv: no operator 'konv'; "),
        ({"graph": every_op().to_json()}, "weights do not fit every_op: "),
        ({"task": '{"kind": "classification"'}, "its task is not JSON: "),
        ({"task": '"abc"'}, "no task None; "),
        ({"task": '{"kind": "classification"}'}, "a classification has labels and an ending, not nothing"),
        (task('"abc"'), "its labels are not a list of names"),
        (task('["a", "b", 3]'), "its labels are not a list of names"),
        (task('["a", "b"]'), "2 labels for an output of shape (3,)"),
        (task("[" * 100_000), "its task is not JSON: "),
        (task("1" * 5000), "its task is not JSON: "),
        ({"format": "1", "labels": '["a", "b"'}, "its labels are not JSON: "),
        ({"format": "1", "labels": '"abc"'}, "its labels are not a list of names"),
        ({"format": "1", "labels": '["a", "b"]'}, "2 labels for an output of shape (3,)"),
        ({"format": "1", "labels": "[" * 100_000}, "its labels are not JSON: "),
        ({"format": "1", "labels": '["a", "b", "c"]', "ending": "tanh"}, "its ending is 'tanh'; there are softmax, "),
        ({"facts": "[]"}, "its facts are list, not a JSON object"),
        ({"facts": '{"a": ' * 100_000}, "its facts are not JSON: "),
        ({"facts": "{"}, "its facts are not JSON: "),
        ({"preprocessing": "{}"}, "not a description of preprocessing: "),
        ({"preprocessing": "[" * 100_000}, ""),
        ({"preprocessing": '{"size": [9, 8], "mean": [0.5], "std": [0.5]}'}, "preprocessing to (9, 8, 1) for an input"),
    ],
    ids=lambda value: str(value)[:60],
)
def test_metadata_that_is_not_right(path, metadata, message):
    assert refused(saved(path, **metadata)).startswith(message)


def test_somebody_elses_safetensors(path):
    save_file({"weight": F32}, path)
    assert refused(path) == "a .safetensors file, but not smallcnn's: it holds weights without a graph"


@pytest.mark.parametrize("content", [b"", b"\0" * 8, b"\xff" * 100, b"PK\x03\x04" * 20, b"GIF89a" * 20], ids=repr)
def test_files_of_another_kind(path, content):
    path.write_bytes(content)
    assert refused(path).startswith("damaged or not a .safetensors file (")


def test_what_is_not_a_file(tmp_path):
    assert refused(tmp_path / "missing.safetensors") == "no such file"
    assert refused(tmp_path) == "a folder, not a file"


def test_every_truncation_is_refused(path, content):
    data = 8 + int.from_bytes(content[:8], "little")
    ends = {0, 1, 7, 8, 9, data - 1, data, data + 1, len(content) - 4, len(content) - 1}
    for end in ends | set(range(0, len(content), 97)):
        path.write_bytes(content[:end])
        assert refused(path).startswith("damaged or not a .safetensors file ("), end


def test_bytes_after_the_end_are_refused(path, content):
    path.write_bytes(content + b"\0")
    assert refused(path).startswith("damaged or not a .safetensors file (")


@pytest.fixture(scope="module")
def content(tmp_path_factory) -> bytes:
    """A good file."""
    return saved(tmp_path_factory.mktemp("good") / "model.safetensors").read_bytes()


byte = st.integers(0, 255) | st.sampled_from(b'"{}[],:019eN-')


@settings(suppress_health_check=[HealthCheck.function_scoped_fixture], max_examples=400)
@given(changes=st.lists(st.tuples(st.floats(0, 1), byte), min_size=1, max_size=3), whole=st.booleans())
def test_a_damaged_header_is_read_or_refused(path, content, integers, changes, whole):
    """Any of its bytes changed: an artifact or a FileError, never another exception."""
    save(integers, path)
    damaged = bytearray(path.read_bytes() if whole else content)
    end = 8 + int.from_bytes(damaged[:8], "little")
    for where, value in changes:
        damaged[int(where * (end - 1))] = value
    path.write_bytes(damaged)
    with suppress(FileError):
        assert load(path).graph.output_shape == (3,)


class Trap:
    """Unpickled, it leaves a file behind."""

    def __init__(self, path: Path) -> None:
        self.path = path

    def __reduce__(self):
        return Path.touch, (self.path,)


def test_nothing_from_the_file_is_run(tmp_path, path):
    sprung = tmp_path / "sprung"
    path.write_bytes(pickle.dumps(Trap(sprung)))
    assert refused(path).startswith("damaged or not a .safetensors file (")
    assert not sprung.exists()
    pickle.loads(path.read_bytes())  # the trap works: reading the file as a pickle springs it
    assert sprung.exists()


# --- writing ---


def test_the_old_file_stays_when_writing_fails(path, monkeypatch):
    save(artifact(seed=1), path)
    before = path.read_bytes()

    def half(self, content):
        with self.open("wb") as file:
            file.write(content[: len(content) // 2])
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(Path, "write_bytes", half)
    with pytest.raises(FileError, match=f"^cannot write {path}: No space left on device$"):
        save(artifact(seed=2), path)
    assert path.read_bytes() == before
    assert list(path.parent.iterdir()) == [path]


@pytest.mark.parametrize(
    ("place", "message"),
    [("missing/model.safetensors", "No such file or directory"), ("", "it is a folder")],
)
def test_places_that_cannot_be_written(tmp_path, place, message):
    target = tmp_path / place
    with pytest.raises(FileError, match=f"^cannot write {target}: {message}$"):
        save(artifact(), target)
    assert list(tmp_path.iterdir()) == []
