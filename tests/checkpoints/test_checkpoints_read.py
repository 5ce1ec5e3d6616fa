"""What was written comes back by name, and whatever else a file holds ends in one line of FileError."""

import argparse
import collections
import datetime
import enum
import functools
import io
import pickle
import random
import struct
import subprocess
import sys
import time
import zipfile
from collections import OrderedDict
from contextlib import suppress
from pathlib import Path

import numpy as np
import pytest
import safetensors.numpy
import safetensors.torch
import torch

from smallcnn.checkpoints.read import read_tensors, read_weights
from smallcnn.errors import FileError, MissingExtra

SUFFIXES = (".pth", ".pt", ".bin", ".safetensors", ".npz", ".h5")
RNG = np.random.default_rng(0)
WEIGHTS = {  # neither sorted nor reversed, one vector, one scalar
    "stem/conv/kernel": RNG.standard_normal((3, 3, 3, 4), np.float32),
    "stem/bn/gamma": RNG.standard_normal(4, np.float32),
    "head/kernel": RNG.standard_normal((4, 10), np.float32),
    "a/last": np.array(0.25, np.float32),
}


def torch_state(weights):
    return OrderedDict((name, torch.from_numpy(np.array(value))) for name, value in weights.items())


def write_torch(path, weights):
    torch.save(torch_state(weights), path)


def write_keras(path, weights, below=None):
    """Keras' layout: each layer a group with the names of its datasets, which repeat the layer's, ending in :0."""
    h5py = pytest.importorskip("h5py")
    with h5py.File(path, "w") as file:
        root = file.create_group(below) if below else file
        layers = dict.fromkeys(name.rpartition("/")[0] for name in weights)
        root.attrs["layer_names"] = [b"input_1", *(layer.encode() for layer in layers)]
        root.create_group("input_1").attrs.create("weight_names", [], dtype="S1")  # a layer without weights
        for layer in layers:
            own = [name for name in weights if name.rpartition("/")[0] == layer]
            group = root.create_group(layer)
            group.attrs["weight_names"] = [f"{name}:0".encode() for name in own]
            for name in own:
                group[f"{name}:0"] = weights[name]


WRITERS = {
    ".pth": write_torch, ".pt": write_torch, ".bin": write_torch,
    ".safetensors": lambda path, weights: safetensors.numpy.save_file(weights, path),
    ".npz": lambda path, weights: np.savez(path, **weights),
    ".h5": write_keras,
}  # fmt: skip

each_suffix = pytest.mark.parametrize("suffix", SUFFIXES)


def check(read, wanted):
    assert read.keys() == wanted.keys()
    for name, value in wanted.items():
        assert read[name].dtype == np.float32
        np.testing.assert_array_equal(read[name], value, strict=True)


def refusal(path) -> str:
    """The one line that reading `path` ends in."""
    with pytest.raises(FileError) as caught:
        read_tensors(path)
    line = str(caught.value)
    assert len(line.splitlines()) == 1
    assert line.startswith(f"{path}: ")
    return line.removeprefix(f"{path}: ")


@pytest.fixture(scope="module", params=SUFFIXES)
def written(request, tmp_path_factory):
    path = tmp_path_factory.mktemp("written") / f"weights{request.param}"
    WRITERS[request.param](path, WEIGHTS)
    return path


# --- what comes back -----------------------------------------------------------------------------------------------


def test_what_was_written_comes_back(written):
    check(read_tensors(written), WEIGHTS)


def test_order_is_the_files(written):
    if written.suffix == ".safetensors":
        pytest.skip("the format sorts its tensors by size and name")
    assert list(read_tensors(written)) == list(WEIGHTS)


@each_suffix
@pytest.mark.parametrize("kind", [np.float16, np.float64, np.int8, np.uint8, np.int64], ids=lambda kind: kind.__name__)
def test_every_number_type_becomes_float32(suffix, kind, tmp_path):
    WRITERS[suffix](tmp_path / f"w{suffix}", {"layer/a": np.arange(6).reshape(2, 3).astype(kind)})
    check(read_tensors(tmp_path / f"w{suffix}"), {"layer/a": np.arange(6, dtype=np.float32).reshape(2, 3)})


def test_bfloat16_of_pytorch(tmp_path):
    torch.save({"a": torch.tensor([1.0, -2.5, 1.01]).bfloat16()}, tmp_path / "w.pth")
    check(read_tensors(tmp_path / "w.pth"), {"a": np.array([1, -2.5, 1.0078125], np.float32)})  # 8 bits: 1 + 2**-7


def test_strided_and_trainable_tensors(tmp_path):
    matrix = torch.arange(6.0).reshape(2, 3)
    torch.save({"a": matrix.T, "b": torch.nn.Parameter(matrix), "c": matrix[:, 1]}, tmp_path / "w.pth")
    wanted = {"a": [[0, 3], [1, 4], [2, 5]], "b": [[0, 1, 2], [3, 4, 5]], "c": [1, 4]}
    check(read_tensors(tmp_path / "w.pth"), {name: np.array(value, np.float32) for name, value in wanted.items()})


@pytest.mark.parametrize("wrap", [
    lambda state: state,
    lambda state: {"state_dict": state, "epoch": 90, "optimizer": {"state": {}, "lr": 0.1}, "arch": "mobilenet"},
    lambda state: {"model": state, "args": None},
    lambda state: {"model_state_dict": state},
    lambda state: {"net": state, "acc": 91.5},
    lambda state: {"model": {"state_dict": state}},
    lambda state: {"state_dict": OrderedDict((f"module.{name}", value) for name, value in state.items())},
], ids=["bare", "state_dict", "model", "model_state_dict", "net", "twice", "module."])  # fmt: skip
def test_outer_layers_and_counters_are_taken_off(wrap, tmp_path):
    state = torch_state(WEIGHTS)
    state["stem.bn.num_batches_tracked"] = torch.tensor(7)
    torch.save(wrap(state), tmp_path / "w.pth")
    check(read_tensors(tmp_path / "w.pth"), WEIGHTS)


@pytest.mark.parametrize("suffix", [".safetensors", ".npz"])
def test_counters_in_files_without_outer_layers(suffix, tmp_path):
    state = {f"module.{name}": value for name, value in WEIGHTS.items()} | {
        "module.bn.num_batches_tracked": np.int64(7)
    }
    if suffix == ".npz":
        np.savez(tmp_path / "w.npz", **state)
    else:
        safetensors.numpy.save_file(
            {name: np.asarray(value) for name, value in state.items()}, tmp_path / "w.safetensors"
        )
    assert read_tensors(tmp_path / f"w{suffix}").keys() == WEIGHTS.keys()


@pytest.mark.parametrize("name", ["module.a.b", "_orig_mod.a.b", "module._orig_mod.a.b", "a.module.b", "a._orig_mod.b"])
def test_wrapping_modules_leave_names(name, tmp_path):
    torch.save({name: torch.ones(1), "c": torch.ones(2)}, tmp_path / "w.pth")
    assert list(read_tensors(tmp_path / "w.pth")) == ["a.b", "c"]


def test_names_that_would_become_the_same_stay(tmp_path):
    torch.save({"module.a": torch.ones(1), "a": torch.ones(2)}, tmp_path / "w.pth")
    assert list(read_tensors(tmp_path / "w.pth")) == ["module.a", "a"]


# --- what training scripts save --------------------------------------------------------------------------------------


class Level(enum.Enum):
    HIGH = 3


class Attributes(dict):
    """As Lightning's AttributeDict: a dict of a class of its own."""


class Network(torch.nn.Module):
    def __init__(self):
        super().__init__()
        self.stem = torch.nn.Sequential(torch.nn.Conv2d(3, 4, 3), torch.nn.BatchNorm2d(4))
        self.head = torch.nn.Linear(4, 2)
        self.register_buffer("grid", torch.ones(3), persistent=False)
        self.hook = self.head.register_forward_hook(torch.nn.Module.extra_repr)

    def forward(self, x):
        return self.head(self.stem(x).mean((2, 3)))


def optimizer_state():
    parameters = [torch.nn.Parameter(tensor.clone()) for tensor in torch_state(WEIGHTS).values()]
    optimizer = torch.optim.Adam(parameters)
    for parameter in parameters:
        parameter.grad = torch.ones_like(parameter)
    optimizer.step()
    return optimizer.state_dict()


BESIDE = {  # next to the weights, in timm's, torchvision's and Lightning's files and in those of many a script
    "args": argparse.Namespace(lr=0.1, out=Path("runs/1"), level=Level.HIGH, since=datetime.datetime(2026, 1, 1)),
    "metric": np.float64(71.2), "history": [np.float32(1), np.arange(5), {"loss": np.ones(3)}], "best": torch.tensor(7),
    "hyper_parameters": Attributes(width=np.int64(1), kinds=collections.defaultdict(list, a=[1])),
    "callbacks": {"ModelCheckpoint{'mode': 'max'}": {"best_model_path": Path("a.ckpt"), "kth_value": torch.ones(())}},
    "optimizer": optimizer_state(), "optimizer_states": [optimizer_state()], "scaler": {"scale": torch.ones(1)},
    "rng_state": torch.get_rng_state(), "dtype": torch.float16, "device": torch.device("cpu"), "counts": {1, 2},
    "schedule": functools.partial(pow, 2), "ordered": collections.OrderedDict(a=1), "odd": complex(1, 2),
}  # fmt: skip

OLD = {"_use_new_zipfile_serialization": False}
each_form = pytest.mark.parametrize("how", [{}, OLD, {"pickle_protocol": 4}, OLD | {"pickle_protocol": 5}],
                                    ids=["zip", "legacy", "zip 4", "legacy 5"])  # fmt: skip


@each_form
@pytest.mark.parametrize("key", ["state_dict", "model", "model_state_dict", "net", "weights", "params"])
def test_weights_among_everything_else(key, how, tmp_path):
    torch.save(BESIDE | {key: torch_state(WEIGHTS)}, tmp_path / "model_best.pth.tar", **how)
    check(read_tensors(tmp_path / "model_best.pth.tar"), WEIGHTS)


@each_form
@pytest.mark.parametrize("content", [
    {"a": {"net": {"weights": torch_state(WEIGHTS)}}}, (torch_state(WEIGHTS), optimizer_state()),
    Attributes(state_dict=Attributes(torch_state(WEIGHTS))), [3, torch_state(WEIGHTS)],
], ids=["nested", "tuple", "dicts of a class", "list"])  # fmt: skip
def test_weights_deeper_down(content, how, tmp_path):
    torch.save(content, tmp_path / "w", **how)
    check(read_tensors(tmp_path / "w"), WEIGHTS)


@each_form
def test_every_way_to_hold_numbers(how, tmp_path):
    flat = torch.arange(24.0)
    tagged, parameter = flat.view(2, 12).clone(), torch.nn.Parameter(flat.view(3, 8).clone())
    tagged.note = parameter.note = "an attribute"
    content = {
        "with an attribute": tagged, "parameter with one": parameter,
        "matrix": flat.view(4, 6), "turned": flat.view(4, 6).T, "row": flat[6:12], "every other": flat[::2],
        "channels last": torch.arange(24.0).view(1, 2, 3, 4).to(memory_format=torch.channels_last),
        "parameter": torch.nn.Parameter(flat.view(2, 12)[:, 3]), "none": torch.ones(0, 3), "scalar": torch.tensor(0.5),
        "half": flat.half(), "bfloat16": flat.bfloat16(), "double": flat.double(), "bool": flat > 3,
        **{str(kind): flat.to(kind) for kind in (torch.uint8, torch.int8, torch.int16, torch.int32, torch.int64)},
        "uint16": flat.to(torch.int32).to(torch.uint16), "negative": -flat.to(torch.int8),
    }  # fmt: skip
    torch.save(content, tmp_path / "w.pt", **how)
    check(read_tensors(tmp_path / "w.pt"), {name: value.detach().float().numpy() for name, value in content.items()})


def test_tensors_of_a_gpu_and_of_a_tpu(tmp_path):
    """As PyTorch writes them there: another name of the storage's class, an array instead of a storage."""
    torch.save(torch_state(WEIGHTS), tmp_path / "w.pt", **OLD)
    written = (tmp_path / "w.pt").read_bytes()
    assert b"ctorch\nFloatStorage" in written
    gpu = written.replace(b"ctorch\nFloatStorage", b"ctorch.cuda\nFloatStorage").replace(
        b"\3\0\0\0cpu", b"\6\0\0\0cuda:0"
    )
    (tmp_path / "gpu.pt").write_bytes(gpu)
    check(read_tensors(tmp_path / "gpu.pt"), WEIGHTS)

    class OfTPU:
        def __reduce__(self):
            how = (np.ones((2, 3), np.float32), torch.float32, "xla:0", False)
            return torch._utils._rebuild_device_tensor_from_numpy, how

    torch.save({"a": OfTPU()}, tmp_path / "tpu.pt")
    check(read_tensors(tmp_path / "tpu.pt"), {"a": np.ones((2, 3), np.float32)})


@pytest.mark.parametrize("protocol", range(pickle.HIGHEST_PROTOCOL + 1))
def test_plain_pickles(protocol, tmp_path):
    for name, content in {"arrays": WEIGHTS, "tensors": torch_state(WEIGHTS), "wrapped": {"model": WEIGHTS}}.items():
        (tmp_path / f"{name}.pkl").write_bytes(pickle.dumps(content, protocol))
        check(read_tensors(tmp_path / f"{name}.pkl"), WEIGHTS)


@pytest.mark.parametrize("order", ["little", "big"])
def test_byte_order(order, tmp_path):
    made = io.BytesIO()
    torch.save({"a": torch.tensor([1.0, 2.0])}, made)
    with zipfile.ZipFile(made) as archive, zipfile.ZipFile(tmp_path / "w.pt", "w") as changed:
        for name in archive.namelist():
            content = archive.read(name)
            if name.endswith("byteorder"):
                content = order.encode()
            elif "/data/" in name and order == "big":
                content = np.frombuffer(content, "<f4").astype(">f4").tobytes()
            changed.writestr(name, content)
    check(read_tensors(tmp_path / "w.pt"), {"a": np.array([1, 2], np.float32)})


@each_form
def test_averaged_weights_are_taken_where_they_are_complete(how, tmp_path):
    state = torch_state(WEIGHTS)
    plain = {name: value + 1 for name, value in state.items()}
    for averaged in ({"state_dict_ema": state}, {"model_ema": {"module": state, "decay": 0.9}}, {"ema": state}):
        torch.save({"state_dict": plain} | averaged, tmp_path / "w.pt", **how)
        found = read_weights(tmp_path / "w.pt")
        check(found.tensors, WEIGHTS)
        name = next(iter(averaged))
        assert found.notes == (f"used the averaged weights in '{name}', not the plain ones in 'state_dict'",)
    lacking = {"ema": {"shadow": {name: value for name, value in plain.items() if name != "a/last"}}}
    torch.save({"model": state} | lacking, tmp_path / "w.pt", **how)
    found = read_weights(tmp_path / "w.pt")
    check(found.tensors, WEIGHTS)
    assert found.notes == (
        "used the plain weights in 'model': the averaged weights in 'ema' lack 1 of them ('a/last')",
    )


@each_form
@pytest.mark.parametrize("wrap", [lambda net: net, lambda net: {"model": net, "ema": None}, torch.nn.DataParallel],
                         ids=["module", "in a dict", "DataParallel"])  # fmt: skip
@pytest.mark.filterwarnings("ignore::UserWarning")
def test_a_whole_module_gives_its_state_dict(wrap, how, tmp_path):
    network = Network()
    torch.save(wrap(network), tmp_path / "w.pt", **how)
    found = read_weights(tmp_path / "w.pt")
    wanted = {name: value for name, value in network.state_dict().items() if "num_batches" not in name}
    check(found.tensors, {name: value.numpy() for name, value in wanted.items()})
    (note,) = found.notes
    assert "a pickled network" in note
    assert "torch.save(model.state_dict()" in note


@pytest.mark.filterwarnings("ignore")
@each_form
def test_quantized_weights_say_so(how, tmp_path):
    dynamic = torch.ao.quantization.quantize_dynamic(Network(), {torch.nn.Linear}).state_dict()
    plain = {"stem.weight": torch.quantize_per_tensor(torch.ones(3, 3), 0.1, 0, torch.qint8), "b": torch.ones(2)}
    for state in (dynamic, plain):
        torch.save({"state_dict": state}, tmp_path / "w.pt", **how)
        said = refusal(tmp_path / "w.pt")
        assert "is quantized" in said
        assert "torch.save(model.state_dict()" in said


SEEDS = ["zip", "legacy", "module", "arrays", "tensors", "npz", "safetensors"]


def seed(kind):
    content = {
        "state_dict": torch_state(WEIGHTS),
        "args": argparse.Namespace(a=1),
        "m": np.float64(3),
        "h": np.arange(3),
    }
    made = io.BytesIO()
    match kind:
        case "zip" | "legacy":
            torch.save(content, made, **(OLD if kind == "legacy" else {}))
        case "module":
            torch.save(torch.nn.Linear(2, 3), made)
        case "arrays":
            pickle.dump(WEIGHTS, made, 2)
        case "tensors":
            pickle.dump(torch_state(WEIGHTS), made, 4)
        case "npz":
            np.savez(made, **WEIGHTS)
        case "safetensors":
            return safetensors.torch.save({"a": torch.ones(3).bfloat16(), "b": torch.ones(2)})
    return made.getvalue()


def mutated(data, rng):
    """A few bytes changed, lost, doubled, or turned into opcodes of pickles."""
    data = bytearray(data)
    for _ in range(rng.choice([1, 1, 2, 5, 20])):
        at = rng.randrange(len(data))
        match rng.randrange(5):
            case 0:
                data[at] ^= 1 << rng.randrange(8)
            case 1:
                data[at] = rng.randrange(256)
            case 2:
                del data[at : at + rng.randrange(8)]
            case 3:
                data[at:at] = bytes([rng.choice(b"()]}.RbsuaeQq\x81\x85\x86\x87\x93\x940123hjtdlNcio")])
            case 4:
                start = rng.randrange(len(data))
                data[at:at] = data[start : start + rng.randrange(30)]
        if not data:
            return b"."
    return bytes(data)


def mutated_inside(data, rng):
    """A zip archive whose pickle is mutated and whose checksums are right."""
    made = io.BytesIO()
    with zipfile.ZipFile(io.BytesIO(data)) as archive, zipfile.ZipFile(made, "w") as changed:
        for name in archive.namelist():
            content = archive.read(name)
            changed.writestr(name, mutated(content, rng) if name.endswith("data.pkl") else content)
    return made.getvalue()


@pytest.mark.parametrize("kind", SEEDS)
def test_a_mutated_file_is_read_or_refused_in_one_line(kind, tmp_path):
    whole, rng, refused = seed(kind), random.Random(0), 0
    for number in range(400):
        inside = kind in ("zip", "module") and number % 2
        (tmp_path / "w").write_bytes(mutated_inside(whole, rng) if inside else mutated(whole, rng))
        started = time.process_time()
        said = "read"
        try:
            read_weights(tmp_path / "w")
        except FileError as error:
            said = str(error)
        refused += said != "read"
        assert len(said.splitlines()) == 1
        assert time.process_time() - started < 5
    assert 100 < refused < 400


# --- other formats ---------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("below", [None, "model_weights"])
def test_keras_weights_at_the_root_and_in_a_saved_model(below, tmp_path):
    write_keras(tmp_path / "w.h5", WEIGHTS, below)
    check(read_tensors(tmp_path / "w.h5"), WEIGHTS)


def test_keras_names_as_text_and_an_optimizer_beside(tmp_path):
    h5py = pytest.importorskip("h5py")
    with h5py.File(tmp_path / "w.h5", "w") as file:
        group = file.create_group("model_weights")
        group.attrs["layer_names"] = ["dense"]
        layer = group.create_group("dense")
        layer.attrs["weight_names"] = ["dense/kernel", "dense/bias"]  # Keras with other backends has no ":0"
        layer["dense/kernel"], layer["dense/bias"] = np.ones((2, 3), np.float32), np.zeros(3, np.float32)
        file.create_group("optimizer_weights").create_dataset("adam/m:0", data=np.ones(5))
    check(
        read_tensors(tmp_path / "w.h5"),
        {"dense/kernel": np.ones((2, 3), np.float32), "dense/bias": np.zeros(3, np.float32)},
    )


# --- nothing runs --------------------------------------------------------------------------------------------------


class Bomb:
    """Unpickling it makes an empty file."""

    def __init__(self, target: Path) -> None:
        self.target = target

    def __reduce__(self):
        return Path.touch, (self.target,)


def pickled_by_torch(path, thing):
    torch.save({"a": torch.ones(2), "b": thing}, path)


def pickled_by_old_torch(path, thing):
    torch.save({"a": torch.ones(2), "b": thing}, path, _use_new_zipfile_serialization=False)


def plainly_pickled(path, thing):
    path.write_bytes(pickle.dumps({"a": thing}))


def pickled_in_an_array(path, thing):
    np.savez(path, a=np.ones(2), b=np.array([thing], object))


@pytest.mark.filterwarnings("ignore:Detected pickle protocol")  # torch's word on a pickle that is not its own
@pytest.mark.parametrize(("suffix", "write", "load"), [
    (".pth", pickled_by_torch, lambda path: torch.load(path, weights_only=False)),
    (".pt", pickled_by_torch, lambda path: torch.load(path, weights_only=False)),
    (".bin", pickled_by_torch, lambda path: torch.load(path, weights_only=False)),
    (".pth", pickled_by_old_torch, lambda path: torch.load(path, weights_only=False)),
    (".pth", plainly_pickled, lambda path: pickle.loads(path.read_bytes())),
    (".npz", plainly_pickled, lambda path: np.load(path, allow_pickle=True)),
    (".npz", pickled_in_an_array, lambda path: np.load(path, allow_pickle=True)["b"]),
], ids=["pth", "pt", "bin", "old pth", "pickle as pth", "pickle as npz", "npz"])  # fmt: skip
def test_code_in_a_file_does_not_run(suffix, write, load, tmp_path):
    path, target = tmp_path / f"w{suffix}", tmp_path / "it ran"
    write(path, Bomb(target))
    with suppress(FileError):  # of a .npz; elsewhere an inert stub stands in its place
        assert read_tensors(path).keys() == {"a"}
    assert not target.exists()
    load(path)
    assert target.exists(), "the bomb is none, so that this test proves nothing"


# --- what is refused -----------------------------------------------------------------------------------------------


@each_suffix
def test_missing_empty_and_folders(suffix, tmp_path):
    if suffix == ".h5":
        pytest.importorskip("h5py")
    assert refusal(tmp_path / f"absent{suffix}") == "no such file"
    (tmp_path / f"folder{suffix}").mkdir()
    assert refusal(tmp_path / f"folder{suffix}") == "a folder, not a file"
    (tmp_path / f"empty{suffix}").write_bytes(b"")
    assert "damaged" in refusal(tmp_path / f"empty{suffix}")


def test_a_file_cut_off_anywhere(written, tmp_path):
    whole = written.read_bytes()
    cut = tmp_path / written.name
    for size in sorted({1, 7, 8, 9, 63, 64, *range(0, len(whole), max(1, len(whole) // 60)), len(whole) - 1}):
        cut.write_bytes(whole[:size])
        assert refusal(cut)


@each_suffix
def test_random_bytes(suffix, tmp_path):
    if suffix == ".h5":
        pytest.importorskip("h5py")
    rng = np.random.default_rng(0)
    starts = [b"", b"PK\x03\x04", b"\x80\x02", b"\x89HDF\r\n\x1a\n", b"\x93NUMPY\x01\x00"]
    for size in (1, 20, 500):
        for start in starts:
            (tmp_path / f"w{suffix}").write_bytes(start + rng.bytes(size))
            assert refusal(tmp_path / f"w{suffix}")


@pytest.mark.parametrize("suffix", [".pth", ".safetensors"])
def test_a_file_with_a_damaged_byte_is_read_or_refused(suffix, tmp_path):
    path = tmp_path / f"w{suffix}"
    WRITERS[suffix](path, WEIGHTS)
    whole, refused = path.read_bytes(), 0
    rng = np.random.default_rng(0)
    for place in rng.integers(0, len(whole), 200):
        path.write_bytes(whole[:place] + bytes([whole[place] ^ (1 << rng.integers(8))]) + whole[place + 1 :])
        try:
            read_tensors(path)
        except FileError:
            refused += 1
    assert refused


@pytest.mark.parametrize("claimed", [2**32, 2**63 - 1, 2**64 - 1])
def test_a_safetensors_header_that_claims_gigabytes(claimed, tmp_path):
    path = tmp_path / "w.safetensors"
    path.write_bytes(struct.pack("<Q", claimed) + b'{"a":{"dtype":"F32","shape":[1],"data_offsets":[0,4]}}' + bytes(4))
    assert "damaged" in refusal(path)


def test_a_safetensors_tensor_that_claims_gigabytes(tmp_path):
    path, header = (
        tmp_path / "w.safetensors",
        b'{"a":{"dtype":"F32","shape":[1073741824],"data_offsets":[0,4294967296]}}',
    )
    path.write_bytes(struct.pack("<Q", len(header)) + header + bytes(16))
    assert "damaged" in refusal(path)


def test_a_pytorch_tensor_larger_than_its_storage(tmp_path):
    path = tmp_path / "w.pth"
    torch.save({"a": torch.ones(70_000)}, path)
    with zipfile.ZipFile(path) as archive:
        parts = {name: archive.read(name) for name in archive.namelist()}
    (pickled,) = (name for name in parts if name.endswith("data.pkl"))
    size = b"J" + struct.pack("<i", 70_000)  # as the pickle spells a number of more than two bytes
    assert parts[pickled].count(size) == 2  # the storage's, and the tensor's
    parts[pickled] = parts[pickled].replace(size, b"J" + struct.pack("<i", 2**30))
    with zipfile.ZipFile(path, "w") as archive:
        for name, content in parts.items():
            archive.writestr(name, content)
    assert "damaged" in refusal(path)


def test_an_array_larger_than_its_file(tmp_path):
    header = io.BytesIO()
    np.lib.format.write_array_header_1_0(header, {"descr": "<f4", "fortran_order": False, "shape": (1_000_000,)})
    with zipfile.ZipFile(tmp_path / "w.npz", "w") as archive:
        archive.writestr("a.npy", header.getvalue() + bytes(16))
    assert "damaged" in refusal(tmp_path / "w.npz")


@pytest.mark.parametrize("content", [[1, 2], torch.ones(2), None, {"state_dict": [None]}],
                         ids=["list", "tensor", "None", "wrapped list"])  # fmt: skip
def test_a_pytorch_file_without_a_state_dict(content, tmp_path):
    torch.save(content, tmp_path / "w.pth")
    assert "holds no weights" in refusal(tmp_path / "w.pth")


def test_a_file_without_weights(tmp_path):
    torch.save({"epoch": 3, "bn.num_batches_tracked": torch.tensor(7)}, tmp_path / "w.pth")
    np.savez(tmp_path / "w.npz")
    safetensors.numpy.save_file({}, tmp_path / "w.safetensors")
    assert refusal(tmp_path / "w.pth") == "holds no weights: its content ('dict') has no named tensors"
    assert refusal(tmp_path / "w.npz").endswith("it is empty")
    assert refusal(tmp_path / "w.safetensors") == "holds no weights"


def test_text_is_no_weight(tmp_path):
    np.savez(tmp_path / "w.npz", a=np.ones(2), names=np.array(["cat", "dog"]))
    assert "'names' holds <U3, not numbers" in refusal(tmp_path / "w.npz")
    safetensors.torch.save_file({"a": torch.ones(2, dtype=torch.bool)}, tmp_path / "w.safetensors")
    assert "'a' holds bool, not numbers" in refusal(tmp_path / "w.safetensors")


def test_an_h5_file_of_another_program(tmp_path):
    h5py = pytest.importorskip("h5py")
    with h5py.File(tmp_path / "w.h5", "w") as file:
        file["temperature"] = np.arange(5)
    assert "not Keras weights" in refusal(tmp_path / "w.h5")


@pytest.mark.parametrize("lacking", ["the layer", "its list of weights", "the weight"])
def test_an_h5_file_that_lacks_what_it_lists(lacking, tmp_path):
    h5py = pytest.importorskip("h5py")
    with h5py.File(tmp_path / "w.h5", "w") as file:
        file.attrs["layer_names"] = [b"dense"]
        if lacking != "the layer":
            layer = file.create_group("dense")
            if lacking == "the weight":
                layer.attrs["weight_names"] = [b"dense/kernel:0"]
    assert "damaged" in refusal(tmp_path / "w.h5")


def test_a_missing_package_names_the_extra(tmp_path, monkeypatch):
    (tmp_path / "w.h5").write_bytes(b"\x89HDF\r\n\x1a\n")
    monkeypatch.setattr("importlib.util.find_spec", lambda name: None)
    with pytest.raises(MissingExtra, match=r"pip install 'smallcnn\[import\]'"):
        read_tensors(tmp_path / "w.h5")


@pytest.mark.parametrize(
    "tensor",
    [
        torch.ones(2, 2).to_sparse(),
        torch.ones(2, device="meta"),
        torch.zeros(1).expand(10**13),
        torch.ones(2, dtype=torch.complex64),
    ],
    ids=["sparse", "meta", "40 TB", "complex"],
)
def test_tensors_that_are_no_plain_numbers(tensor, tmp_path):
    torch.save({"a": tensor}, tmp_path / "w.pth")
    refusal(tmp_path / "w.pth")


def test_a_dict_that_holds_itself(tmp_path):
    content = {}
    content["model"] = content
    torch.save(content, tmp_path / "w.pth")
    code = "import pathlib, sys, smallcnn.checkpoints.read as m; m.read_tensors(pathlib.Path(sys.argv[1]))"
    done = subprocess.run(
        [sys.executable, "-c", code, str(tmp_path / "w.pth")], capture_output=True, text=True, timeout=60, check=False
    )
    assert "FileError" in done.stderr


def header(shape):
    made = io.BytesIO()
    np.lib.format.write_array_header_1_0(made, {"descr": "<f4", "fortran_order": False, "shape": shape})
    return made.getvalue()


@pytest.mark.parametrize(
    ("name", "content"), [("README.txt", b"hello"), ("a.npy", header((10**13,)) + bytes(8))], ids=["text", "40 TB"]
)
def test_npz_members(name, content, tmp_path):
    with zipfile.ZipFile(tmp_path / "w.npz", "w") as archive:
        archive.writestr(name, content)
    refusal(tmp_path / "w.npz")


def test_npy_called_npz(tmp_path):
    np.save(tmp_path / "w.npy", np.ones(3))
    (tmp_path / "w.npy").rename(tmp_path / "w.npz")
    refusal(tmp_path / "w.npz")


def test_npz_with_a_damaged_byte(tmp_path):
    np.savez_compressed(tmp_path / "w.npz", **WEIGHTS)
    whole = (tmp_path / "w.npz").read_bytes()
    rng = np.random.default_rng(0)
    for place in rng.integers(0, len(whole), 500):
        flipped = bytes([whole[place] ^ (1 << rng.integers(8))])
        (tmp_path / "w.npz").write_bytes(whole[:place] + flipped + whole[place + 1 :])
        with suppress(FileError):  # nothing else may leave
            read_tensors(tmp_path / "w.npz")


@pytest.mark.parametrize("value", [5, "Empty"])
@pytest.mark.parametrize("attribute", ["layer_names", "weight_names"])
def test_h5_attributes_of_another_kind(value, attribute, tmp_path):
    h5py = pytest.importorskip("h5py")
    value = h5py.Empty("f") if value == "Empty" else value
    with h5py.File(tmp_path / "w.h5", "w") as file:
        file.attrs["layer_names"] = [b"dense"] if attribute == "weight_names" else value
        file.create_group("dense").attrs["weight_names"] = value
    refusal(tmp_path / "w.h5")


def test_h5_dataset_that_claims_terabytes(tmp_path):
    h5py = pytest.importorskip("h5py")
    with h5py.File(tmp_path / "w.h5", "w") as file:
        file.attrs["layer_names"] = [b"dense"]
        layer = file.create_group("dense")
        layer.attrs["weight_names"] = [b"k:0"]
        layer.create_dataset("k:0", shape=(10**13,), dtype="f4", chunks=(1024,))
    refusal(tmp_path / "w.h5")
