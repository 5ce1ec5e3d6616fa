"""Keras files as networks of their own: the same answers as Keras, whatever the version's way of writing, and refusals.

`keras_files/files.zip` holds two models as Keras 3 saves them in three formats, and its answers. Older versions' ways
are written here, from those files' descriptions and weights.
"""

import copy
import json
import os
import subprocess
import sys
import zipfile
from functools import cache
from pathlib import Path

import numpy as np
import pytest

from fuzz import damage
from smallcnn.checkpoints.importing import import_checkpoint
from smallcnn.checkpoints.keras_file import keras_tensors
from smallcnn.errors import FileError, SmallcnnError
from smallcnn.image.overrides import Overrides
from smallcnn.ir import ops
from smallcnn.keras import survey
from smallcnn.reference.floating import answer as run
from smallcnn.tasks.ending import probabilities

h5py = pytest.importorskip("h5py")

FILES = Path(__file__).parents[1] / "keras_files" / "files.zip"


@cache
def content(name) -> bytes:
    with zipfile.ZipFile(FILES) as archive:
        return archive.read(name)


def unpacked(name, folder) -> Path:
    (folder / name).write_bytes(content(name))
    return folder / name


def check(made, name, rtol=0):
    """Keras' answers, computed in float32 through some hundred sums."""
    said = json.loads(content("answers.json"))[name]
    images = made.preprocessing.normalise(np.array(said["images"]))
    got = probabilities(run(made.graph, made.weights, images), made.task.ending)
    answers = np.array(said["answers"])
    np.testing.assert_allclose(got if answers.shape[1] > 1 else got[:, 1:], answers, rtol=rtol, atol=1e-5)


@pytest.mark.parametrize("suffix", [".keras", ".h5"])
@pytest.mark.parametrize("name", ["transfer", "sequence"])
def test_keras_3(name, suffix, tmp_path):
    made = import_checkpoint([unpacked(name + suffix, tmp_path)])
    check(made, name)
    assert made.graph.name == name
    assert made.facts["keras"] == {
        "images": "in the file" if name == "transfer" else "assumed",
        "dropped": "softmax" if name == "transfer" else "sigmoid",
    }
    assert len(made.labels) == (3 if name == "transfer" else 2)


def test_dilated_filters(tmp_path):
    check(import_checkpoint([unpacked("dilated.keras", tmp_path)]), "dilated")


def test_rescaling_goes_into_the_preparation(tmp_path):
    made = import_checkpoint([unpacked("transfer.keras", tmp_path)])
    assert made.preprocessing.mean == pytest.approx((0.5,) * 3)
    assert made.preprocessing.std == pytest.approx((0.5,) * 3)
    assert [node.op.kind for node in made.graph][:3] == ["input", "conv", "batch_norm"]


# --- the ways of other versions ------------------------------------------------------------------------------------


def older_node(node):
    """A call as Keras 1 and 2 list it: its tensors, each with layer, call, output and settings."""
    first = node["args"][0]
    return [[*tensor["config"]["keras_history"], {}] for tensor in (first if isinstance(first, list) else [first])]


def older(entry, version):
    """A layer of a Keras 3 description as Keras 2 writes it (2.1 and before: sequences as lists)."""
    entry = copy.deepcopy(entry)
    config = entry["config"]
    config.pop("dtype", None)
    if entry["class_name"] in ("Functional", "Sequential"):
        config["layers"] = [older(layer, version) for layer in config["layers"]]
        for key in ("input_layers", "output_layers"):
            if key in config and isinstance(config[key][0], str):
                config[key] = [config[key]]
        if entry["class_name"] == "Functional" and version < (2, 3):
            entry["class_name"] = "Model"
        if entry["class_name"] == "Sequential" and version < (2, 2):
            first = config["layers"].pop(0)
            if config["layers"][0]["class_name"] not in ("Functional", "Model"):
                config["layers"][0]["config"]["batch_input_shape"] = first["config"]["batch_input_shape"]
            entry["config"] = config["layers"]
    if entry["class_name"] == "InputLayer":
        config["batch_input_shape"] = config.pop("batch_shape")
    if entry["class_name"] == "LeakyReLU":
        config["alpha"] = config.pop("negative_slope")
    if "keepdims" in config and not config["keepdims"]:
        del config["keepdims"]
    if "inbound_nodes" in entry:
        entry["inbound_nodes"] = [older_node(node) for node in entry["inbound_nodes"]]
    return entry


def rewritten(name, folder, change, version="2.4.0", path="w.h5"):
    """The .h5 file with another description, which may be changed in place."""
    unpacked(f"{name}.h5", folder).rename(folder / path)
    with h5py.File(folder / path, "r+") as file:
        description = json.loads(file.attrs["model_config"])
        description = change(description) or description
        file.attrs["model_config"] = json.dumps(description).encode()
        file.attrs["keras_version"] = version.encode()
        return folder / path


def test_upsampling_by_repeating_changes_no_maximum(tmp_path):
    def larger(description):
        layers = description["config"]["layers"]
        layers.insert(-2, {"class_name": "UpSampling2D", "config": {"name": "up", "size": [2, 3]}})

    made = import_checkpoint([rewritten("sequence", tmp_path, larger, "3.0.0")])
    check(made, "sequence")
    (op,) = [node.op for node in made.graph if isinstance(node.op, ops.Resize)]
    assert (op.height % 2, op.width % 3, op.mode) == (0, 0, "nearest")


@pytest.mark.parametrize("version", [(2, 0), (2, 2), (2, 4)])
def test_keras_2(version, tmp_path):
    written = ".".join(map(str, version))
    path = rewritten("sequence", tmp_path, lambda d: older(d, version), written)
    made = import_checkpoint([path])
    check(made, "sequence")


def test_keras_2_has_another_hard_sigmoid(tmp_path):
    """0.2 x + 0.5 where Keras 3 has x / 6 + 0.5."""
    path = rewritten("transfer", tmp_path, lambda d: older(d, (2, 4)))
    made = import_checkpoint([path])
    assert "hard_sigmoid" not in {getattr(node.op, "function", None) for node in made.graph}
    with pytest.raises(AssertionError):
        check(made, "transfer")

    def steeper(description):
        description = older(description, (2, 4))
        layers = description["config"]["layers"]
        gate = next(layer for layer in layers if layer["config"].get("activation") == "hard_sigmoid")
        gate["config"]["activation"] = {"class_name": "function", "config": "hard_sigmoid", "module": "builtins"}
        return description

    check(import_checkpoint([rewritten("transfer", tmp_path, steeper, "3.0.0")]), "transfer")


def test_keras_1_names_of_settings_and_tensors(tmp_path):
    """One convolution and a dense layer, by hand: nb_filter, subsample, border_mode; conv_W, conv_b."""
    rng = np.random.default_rng(0)
    kernel, bias = rng.standard_normal((3, 3, 3, 4)).astype(np.float32), rng.standard_normal(4).astype(np.float32)
    weight, shift = rng.standard_normal((4, 2)).astype(np.float32), rng.standard_normal(2).astype(np.float32)
    conv = {"name": "conv", "nb_filter": 4, "nb_row": 3, "nb_col": 3, "subsample": [2, 2], "border_mode": "same",
            "dim_ordering": "tf", "bias": True, "activation": "relu", "batch_input_shape": [None, 8, 8, 3]}  # fmt: skip
    layers = [
        {"class_name": "Convolution2D", "config": conv},
        {"class_name": "GlobalAveragePooling2D", "config": {"name": "pool", "dim_ordering": "tf"}},
        {"class_name": "Dense", "config": {"name": "dense", "output_dim": 2, "bias": True, "activation": "softmax"}},
    ]
    with h5py.File(tmp_path / "w.h5", "w") as file:
        file.attrs["keras_version"] = b"1.2.2"
        file.attrs["model_config"] = json.dumps({"class_name": "Sequential", "config": layers}).encode()
        group = file.create_group("model_weights")
        group.attrs["layer_names"] = [b"conv", b"pool", b"dense"]
        for layer, tensors in {
            "conv": {"W": kernel, "b": bias},
            "pool": {},
            "dense": {"W": weight, "b": shift},
        }.items():
            own = group.create_group(layer)
            own.attrs["weight_names"] = [f"{layer}_{key}".encode() for key in tensors]
            for key, value in tensors.items():
                own[f"{layer}_{key}"] = value
    made = import_checkpoint([tmp_path / "w.h5"])
    image = rng.standard_normal((8, 8, 3))
    padded = np.pad(image, ((0, 1), (0, 1), (0, 0)))
    maps = [[np.tensordot(padded[y : y + 3, x : x + 3], kernel, 3) + bias for x in (0, 2, 4, 6)] for y in (0, 2, 4, 6)]
    want = np.maximum(maps, 0).mean((0, 1)) @ weight + shift
    np.testing.assert_allclose(run(made.graph, made.weights, image[None])[0], want, rtol=1e-10)  # float64 both
    assert list(keras_tensors(tmp_path / "w.h5")) == ["conv/kernel", "conv/bias", "dense/kernel", "dense/bias"]


def test_names_that_tell_nothing_are_taken_in_order(tmp_path):
    """A model inside another whose tensors have other names than its layers, as after a second session of Keras 2."""

    def renamed(name):
        for layer in ("conv2d", "batch_normalization", "depthwise_conv2d"):
            name = name.replace(f"{layer}", f"x_{layer}")
        return name

    path = unpacked("transfer.h5", tmp_path)
    with h5py.File(path, "r+") as file:
        group = file["model_weights/backbone"]
        names = [str(name) for name in group.attrs["weight_names"]]
        for name in names:
            group[renamed(name) + "_1:0"] = group[name][()]
        group.attrs["weight_names"] = [(renamed(name) + "_1:0").encode() for name in names]
    check(import_checkpoint([path]), "transfer")


def test_operations_of_tensorflow_between_layers(tmp_path):
    """x / 127.5 - 1 as Keras 2 writes it in place of the Rescaling layer."""

    def change(description):
        description = older(description, (2, 4))
        layers = description["config"]["layers"]
        at = next(i for i, layer in enumerate(layers) if layer["class_name"] == "Rescaling")
        source = layers[at]["inbound_nodes"][0][0][0]
        name = layers[at]["name"]
        steps = [
            {"class_name": "TFOpLambda", "name": "divide", "config": {"name": "divide", "function": "math.truediv"},
             "inbound_nodes": [[source, 0, 0, {"y": 127.5, "name": None}]]},
            {"class_name": "TFOpLambda", "name": name, "config": {"name": name, "function": "math.subtract"},
             "inbound_nodes": [["divide", 0, 0, {"y": 1.0, "name": None}]]},
        ]  # fmt: skip
        layers[at : at + 1] = steps
        return description

    check(import_checkpoint([rewritten("transfer", tmp_path, change, "3.0.0")]), "transfer")


# --- weights without a description, and --as -----------------------------------------------------------------------


@pytest.mark.parametrize("suffix", [".keras", ".h5", ".weights.h5"])
def test_tensors_in_the_order_the_layers_run(suffix, tmp_path):
    tensors = keras_tensors(unpacked(f"transfer{suffix}", tmp_path))
    shapes = [value.shape for name, value in tensors.items() if name.endswith("/kernel") and value.ndim == 4]
    expected = [(3, 3, 3, 4), (1, 1, 8, 6), (1, 1, 6, 6)]
    assert shapes == expected if suffix != ".weights.h5" else sorted(shapes) == sorted(expected)


def test_weights_alone_say_so(tmp_path):
    with pytest.raises(FileError, match="no registered network fits its names and shapes"):
        import_checkpoint([unpacked("transfer.weights.h5", tmp_path)])


# --- refusals ------------------------------------------------------------------------------------------------------


def refused(path, **more) -> str:
    with pytest.raises(FileError) as caught:
        import_checkpoint([path], **more)
    (line,) = str(caught.value).splitlines()
    assert line.startswith(f"{path}: ")
    return line.removeprefix(f"{path}: ")


def with_layer(kind, config=None, registered=None):
    """A change that puts another layer in place of the dropout."""

    def change(description):
        layers = description["config"]["layers"]
        layer = next(layer for layer in layers if layer["class_name"] == "Dropout")
        layer |= {"class_name": kind, "registered_name": registered}
        layer["config"] = {"name": layer["name"]} | (config or {})

    return change


@pytest.mark.parametrize(("change", "reason"), [
    (with_layer("Lambda", {"function": ["4wEAAAAAAA==", None, None]}), "it is Python code, which is not run"),
    (with_layer("Gate", registered="mine>Gate"), "its class is not part of Keras, and the file does not hold its code"),
    (with_layer("LayerNormalization"), "the graph has no operator for it"),
    (with_layer("Activation", {"activation": "swish"}), "has the activation 'swish', which the graph does not have"),
    (with_layer("Activation", {"activation": {"class_name": "__lambda__"}}), "has the activation '__lambda__'"),
    (with_layer("ReLU", {"max_value": None, "threshold": 1.0}), "the threshold 1; only 0 is known"),
    (with_layer("Reshape", {"target_shape": [7, 7]}), "cannot reshape"),
])  # fmt: skip
def test_layers_that_are_not_read_are_named(change, reason, tmp_path):
    said = refused(rewritten("transfer", tmp_path, change, "3.0.0"))
    assert said.startswith("the layer 'dropout' (")
    assert reason in said


def test_a_model_with_code_of_its_own(tmp_path):
    path = rewritten("transfer", tmp_path, lambda d: d | {"class_name": "MyNet"})
    assert refused(path) == "its model is of the class 'MyNet', whose layers only its Python code connects"


def test_two_outputs(tmp_path):
    def change(description):
        end = description["config"]["output_layers"]
        description["config"]["output_layers"] = [end, end]

    assert refused(rewritten("transfer", tmp_path, change)) == "has 2 outputs; a classifier has one"


def test_a_layer_that_reads_itself(tmp_path):
    def change(description):
        description = older(description, (2, 4))
        layer = next(layer for layer in description["config"]["layers"] if layer["class_name"] == "Dropout")
        layer["inbound_nodes"] = [[[layer["name"], 0, 0, {}]]]
        return description

    assert "damaged: the layer 'dropout' reads its own result" in refused(rewritten("transfer", tmp_path, change))


def test_a_size_left_open_is_asked_for(tmp_path):
    def change(description):
        for layer in (description["config"]["layers"][0], description["config"]["layers"][2]["config"]["layers"][0]):
            layer["config"]["batch_shape"] = [None, None, None, 3]

    path = rewritten("transfer", tmp_path, change, "3.0.0")
    assert "any height and width: choose one, as in --resolution 224x224" in refused(path)
    check(import_checkpoint([path], overrides=Overrides(resolution=12)), "transfer")


def test_the_mean_is_of_what_the_network_is_fed(tmp_path):
    """As for every file that scales its images itself."""
    path = unpacked("transfer.keras", tmp_path)
    made = import_checkpoint([path], overrides=Overrides(mean=(0.0,), std=(1 / 255,)))
    check(made, "transfer")


def test_tensors_that_lie_elsewhere(tmp_path):
    """A link or a data set may name any file of the machine."""
    (tmp_path / "secret").write_bytes(np.ones(3, np.float32).tobytes())
    for kind in ("link", "external", "virtual"):
        path = unpacked("transfer.h5", tmp_path)
        with h5py.File(path, "r+") as file:
            group = file["model_weights/dense"]
            (name, *_) = [str(name) for name in group.attrs["weight_names"] if "bias" in str(name)]
            del group[name]
            if kind == "link":
                group[name] = h5py.ExternalLink(str(tmp_path / "other.h5"), "/x")
            elif kind == "external":
                group.create_dataset(name, (3,), np.float32, external=[(str(tmp_path / "secret"), 0, 12)])
            else:
                layout = h5py.VirtualLayout((3,), np.float32)
                layout[:] = h5py.VirtualSource(str(tmp_path / "other.h5"), "x", (3,))
                group.create_virtual_dataset(name, layout)
        assert "is a link to another place" in (said := refused(path)) or "stored in another file" in said


def test_a_tensor_that_claims_gigabytes(tmp_path):
    path = unpacked("transfer.h5", tmp_path)
    with h5py.File(path, "r+") as file:
        group = file["model_weights/dense"]
        name = str(group.attrs["weight_names"][0])
        del group[name]
        group.create_dataset(name, (2**20, 2**12), np.float32, chunks=(2**10, 2**10), compression="gzip")
    assert "claims to be larger than its file" in refused(path)


def test_a_description_nested_without_end(tmp_path):
    with zipfile.ZipFile(tmp_path / "w.keras", "w") as archive:
        archive.writestr("config.json", "[" * 100_000)
        archive.writestr("metadata.json", "{}")
        archive.writestr("model.weights.h5", b"")
    assert refused(tmp_path / "w.keras") == "damaged: its description is not JSON"


@pytest.mark.parametrize("name", ["transfer.keras", "sequence.h5"])
def test_damaged_descriptions(name, tmp_path):
    """Bytes of the description changed; what still reads is a network, all else one line."""
    rng = np.random.default_rng(1)
    with zipfile.ZipFile(FILES) as files:
        (tmp_path / "whole").write_bytes(files.read(name))
    if name.endswith(".keras"):
        with zipfile.ZipFile(tmp_path / "whole") as archive:
            parts = {part: archive.read(part) for part in archive.namelist()}
        whole = parts["config.json"]
    else:
        with h5py.File(tmp_path / "whole", "r") as file:
            whole = file.attrs["model_config"].encode()
    path = tmp_path / "w.model"
    for _ in range(40):
        changed = damage(whole, rng)
        if name.endswith(".keras"):
            with zipfile.ZipFile(path, "w") as archive:
                for part, value in (parts | {"config.json": changed}).items():
                    archive.writestr(part, value)
        else:
            path.write_bytes(content(name))
            with h5py.File(path, "r+") as file:
                file.attrs["model_config"] = np.void(changed) if b"\0" in changed else changed
        try:
            import_checkpoint([path])
        except SmallcnnError as error:
            assert len(str(error).splitlines()) == 1  # noqa: PT017


# --- damage that the HDF5 library does not end by itself -----------------------------------------------------------


def test_a_file_whose_reading_never_ends(tmp_path, monkeypatch):
    """Seen with damaged attributes; here a pipe that nobody writes to."""
    monkeypatch.setattr(survey, "_SECONDS", 1)
    os.mkfifo(tmp_path / "w.h5")
    with pytest.raises(FileError, match="damaged: reading its HDF5 does not finish"):
        survey.survey(tmp_path / "w.h5", 0, 2**20)


def test_a_file_that_crashes_the_library(tmp_path, monkeypatch):
    program = tmp_path / "python"
    program.write_text("#!/bin/sh\nkill -SEGV $$\n")
    program.chmod(0o755)
    monkeypatch.setattr(sys, "executable", str(program))
    assert refused(unpacked("transfer.h5", tmp_path)) == "damaged: its HDF5 crashes the HDF5 library"


def test_a_file_whose_reading_computes_for_ever(tmp_path, monkeypatch):
    """The child process loops where the HDF5 library would, and ends after its processor time."""
    with h5py.File(tmp_path / "w.h5", "w") as file:
        file["a"] = np.zeros(3)
    looping = (
        "import itertools, sys, smallcnn.keras.survey as survey\n"
        "survey._walk = lambda file, limit: all(True for _ in itertools.count())\n"
        "survey._main(sys.argv[1], int(sys.argv[2]))"
    )
    run = subprocess.run
    monkeypatch.setattr(
        survey.subprocess, "run", lambda command, **options: run([command[0], "-c", looping, *command[3:]], **options)
    )
    with pytest.raises(FileError, match="damaged: reading its HDF5 does not finish"):
        survey.survey(tmp_path / "w.h5", 0, 2**20)
