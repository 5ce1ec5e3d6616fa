"""The ONNX file of a detector with other limits: it stores those of NonMaxSuppression as tensors."""

from pathlib import Path

import numpy as np
import onnx
from onnx import numpy_helper

from smallcnn.errors import FileError
from smallcnn.transform.limits import Limits

_PLACES = {"overlap": 3, "threshold": 4}
"""Where NonMaxSuppression has them among its inputs."""


def limited_file(path: Path, limits: Limits) -> bytes:
    """The file's content with another threshold and overlap. Raises FileError if they are not stored in it."""
    try:
        file = onnx.load(path)
    except Exception as error:  # of protobuf or of the system
        raise FileError(f"{path}: damaged, or not an ONNX model ({' '.join(str(error).split())})") from error
    stored = {tensor.name: tensor for tensor in file.graph.initializer}
    ends = [node for node in file.graph.node if node.op_type == "NonMaxSuppression"]
    for name, place in _PLACES.items():
        if (value := limits.given.get(name)) is None:
            continue
        tensors = [stored.get(node.input[place]) for node in ends if len(node.input) > place]
        if not tensors or None in tensors:
            raise FileError(f"{path}: {name} is fixed in this file; set it when the network is exported")
        for tensor in tensors:
            assert tensor is not None
            tensor.CopyFrom(numpy_helper.from_array(np.array([value], np.float32), tensor.name))
    return bytes(file.SerializeToString())
