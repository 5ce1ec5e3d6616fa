"""ONNX both ways: `write` turns a model into a file, `read` any small CNN's file into a model.

`read.outline` inspects a file without the onnx package, which is imported only when one of the others is used.
"""

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from smallcnn.onnx.read.reading import from_onnx, read_onnx
    from smallcnn.onnx.write import export, to_onnx

__all__ = ["export", "from_onnx", "read_onnx", "to_onnx"]


def __getattr__(name: str) -> Any:
    if name not in __all__:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    if name in ("export", "to_onnx"):
        from smallcnn.onnx import write

        return getattr(write, name)
    from smallcnn.onnx.read import reading

    return getattr(reading, name)
