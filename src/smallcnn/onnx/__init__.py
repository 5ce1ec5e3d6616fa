"""ONNX both ways: `write` exports a model, `read` turns any small CNN's file into one.

`outline` inspects a file without the onnx package, so that package is imported only when one of the others is used.
"""

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from smallcnn.onnx.read.reading import Read, from_onnx, read_onnx
    from smallcnn.onnx.write import export, to_onnx

__all__ = ["Read", "export", "from_onnx", "read_onnx", "to_onnx"]


def __getattr__(name: str) -> Any:
    if name not in __all__:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    from smallcnn.onnx import write as writing
    from smallcnn.onnx.read import reading

    return getattr(writing if name in ("export", "to_onnx") else reading, name)
