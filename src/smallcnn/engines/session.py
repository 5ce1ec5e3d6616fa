"""A network in an engine, ready to run: the session that every engine gives, and the source it starts from."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from smallcnn.ir.types import Tensor

if TYPE_CHECKING:
    from smallcnn.model.model import Model
    from smallcnn.transform.limits import Limits

Run = Callable[[np.ndarray], dict[str, np.ndarray]]
"""A prepared uint8 batch (N, H, W, C) -> every output by name, (N, ...) each, channels last."""


@dataclass(frozen=True)
class Session:
    """A network in an engine: the shape of one image, the outputs of one image, and the metadata of its file.

    `outputs` are as the engine reports them, without grids. A model in memory has no metadata.
    """

    input_shape: tuple[int, int, int]
    outputs: dict[str, Tensor]
    metadata: dict[str, str]
    run: Run


@dataclass(frozen=True)
class Loadable:
    """The input of an engine: a model, or the path of a file. `where` names it in messages.

    `limits` replace what the detector of a file keeps.
    """

    source: "Model | Path"
    where: str
    limits: "Limits | None" = None

    @property
    def file(self) -> Path:
        """The path of a file; only a source that is one has it."""
        assert isinstance(self.source, Path)
        return self.source

    @property
    def model(self) -> "Model":
        """The model; only a source that is one has it."""
        assert not isinstance(self.source, Path)
        return self.source

    @cached_property
    def onnx(self) -> str | bytes:
        """The path of an ONNX file, which engines map rather than copy, or the model or the changed file as ONNX."""
        if isinstance(self.source, Path):
            if not self.limits:
                return str(self.source)
            from smallcnn.onnx.limits import limited_file

            return limited_file(self.source, self.limits)
        from smallcnn.onnx import to_onnx

        return bytes(to_onnx(self.source).SerializeToString())

    def also_giving(self, nodes: Sequence[str], prefix: str) -> "Loadable":
        """The model as ONNX with the results of these nodes, rows, as further outputs; their names begin with
        `prefix`."""
        import onnx

        from smallcnn.onnx.write import add_outputs

        file = onnx.load_from_string(self.onnx)
        add_outputs(file, self.model.graph, nodes, prefix)
        made = Loadable(self.source, self.where)
        made.__dict__["onnx"] = file.SerializeToString()  # cached already
        return made
