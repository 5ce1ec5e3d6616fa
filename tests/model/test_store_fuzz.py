"""Damaged .safetensors model files: each is an error of one line, or a network whose answer is ONNX Runtime's."""

import functools
import json
import struct
import tempfile
from pathlib import Path

import numpy as np
import pytest

from artifacts import artifact
from fuzz import damage, survive
from networks import every_op, tiny
from smallcnn import zoo
from smallcnn.cost.profile import profile
from smallcnn.errors import AnswerError, SmallcnnError
from smallcnn.model.probe import probe_answer, probe_image
from smallcnn.model.store import load, save
from smallcnn.onnx import to_onnx

MODELS = (
    "effnet_cifar:block=revised",
    "mobilenet_v1:width=0.25,small_input=true",
    "mobilenet_v2:width=0.35,small_input=true",
    "mobilenet_v3_small:small_input=true",
    "shufflenet_v2:scale=0.5,small_input=true",
    "squeezenet_1_1:small_input=true",
)

TOLERANCE = 1e-3
"""Damaged weights make sums that cancel; a wrong layer changes the answer's first digit."""

MOST_MULT_ADDS, MOST_ELEMENTS = 10**8, 10**7  # what is worth running
ODD = (
    -(2**63),
    -1,
    0,
    0.5,
    1,
    2,
    3,
    7,
    2**31,
    2**40,
    10**400,
    "relu",
    "",
    "stem",
    None,
    True,
    [],
    [1],
    {},
    [[0, 1], [1, 0]],
)


@functools.cache
def place() -> tempfile.TemporaryDirectory:
    """Gone with the process."""
    return tempfile.TemporaryDirectory()


def folder() -> Path:
    return Path(place().name)


@functools.cache
def originals() -> tuple[bytes, ...]:
    graphs = [every_op(), tiny(), *(zoo.parse(text).build(resolution=16, classes=3) for text in MODELS)]
    files = []
    for graph in graphs:
        save(artifact(graph), folder() / "original.safetensors")
        files.append((folder() / "original.safetensors").read_bytes())
    return tuple(files)


def rearrange(content: bytes, rng: np.random.Generator) -> bytes:
    """One or two values of the header, the graph or another entry replaced, removed or added."""
    (length,) = struct.unpack("<Q", content[:8])
    header = json.loads(content[8 : 8 + length])
    metadata = header["__metadata__"]
    inside = {key: json.loads(text) for key, text in metadata.items() if key != "smallcnn.format"}
    for _ in range(rng.integers(1, 3)):
        graph = inside.get("smallcnn.graph")
        if isinstance(graph, dict) and rng.random() < 0.7:
            change(graph, rng)
        else:
            change(inside if rng.random() < 0.5 else header, rng)
    metadata |= {key: value if isinstance(value, str) else json.dumps(value) for key, value in inside.items()}
    text = json.dumps(header).encode()
    return struct.pack("<Q", len(text)) + text + content[8 + length :]


def change(value, rng: np.random.Generator) -> None:
    """Walks down `value` at random and changes what it finds there."""
    while True:
        keys = list(value) if isinstance(value, dict) else list(range(len(value)))
        if not keys:
            return
        key = keys[rng.integers(len(keys))]
        if isinstance(value[key], dict | list) and value[key] and rng.random() < 0.9:
            value = value[key]
            continue
        match rng.integers(4):
            case 0:
                del value[key]
            case 1 if isinstance(value, list):
                value.append(value[key])
            case 2:
                other = keys[rng.integers(len(keys))]
                value[key], value[other] = value[other], value[key]
            case _:
                value[key] = ODD[rng.integers(len(ODD))]
        return


def judge(case: int, stage) -> str:
    """Damages a file as `case` says, loads it, and compares ONNX Runtime's answer with the plain definition's."""
    rng = np.random.default_rng(case)
    content = originals()[rng.integers(len(originals()))]
    path = folder() / "damaged.safetensors"
    path.write_bytes(damage(content, rng) if rng.random() < 0.4 else rearrange(content, rng))
    try:
        made = load(path)
    except SmallcnnError as error:
        return "refused" if len(str(error)) < 1000 else "refused at length"
    largest = max(int(np.prod(node.shape)) for node in made.graph)
    if profile(made.graph).mult_adds > MOST_MULT_ADDS or largest > MOST_ELEMENTS:
        return "too large to run"
    try:
        (wanted,) = probe_answer(made.graph, made.weights, made.preprocessing).values()
    except AnswerError:
        return "beyond float32"
    if np.abs(wanted).max() > 1e30:
        return "beyond float32"
    exported = to_onnx(made).SerializeToString()
    stage("onnxruntime")
    import onnxruntime

    options = onnxruntime.SessionOptions()
    options.log_severity_level, options.intra_op_num_threads = 4, 1
    session = onnxruntime.InferenceSession(exported, options, providers=["CPUExecutionProvider"])
    got = session.run(None, {"images": probe_image(made.graph.input_shape)})[0][0]
    if not np.isfinite(got).all():
        return "beyond float32"
    error = np.abs(got - wanted).max()
    assert error <= TOLERANCE * np.abs(wanted).max(), (error, np.abs(wanted).max())
    return "agrees"


def test_damaged_files():
    outcomes = survive("test_store_fuzz", 0, 300)
    assert outcomes["agrees"] > 10, outcomes
    assert outcomes["refused"] > 100, outcomes
    assert not outcomes["refused at length"]


@pytest.mark.long
def test_ten_thousand_damaged_files():
    assert not survive("test_store_fuzz", 1000, 10_000)["refused at length"]
