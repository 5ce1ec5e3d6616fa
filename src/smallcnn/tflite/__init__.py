"""TensorFlow Lite files, read as networks of their own."""

from smallcnn.tflite.reading import read_tflite

__all__ = ["read_tflite"]
