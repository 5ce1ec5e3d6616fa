"""TensorFlow Lite files, read as self-contained networks."""

from smallcnn.tflite.reading import read_tflite

__all__ = ["read_tflite"]
