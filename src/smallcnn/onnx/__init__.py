"""ONNX both ways: `writing` turns an artifact into a file, `reading` any small CNN's file into an artifact."""

from smallcnn.onnx.reading import Read, from_onnx, read_onnx
from smallcnn.onnx.writing import export, to_onnx

__all__ = ["Read", "export", "from_onnx", "read_onnx", "to_onnx"]
