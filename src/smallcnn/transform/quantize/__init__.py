"""Quantization: a float network becomes one that computes with bytes."""

from smallcnn.transform.quantize.edges import find_edges, without_integer_form
from smallcnn.transform.quantize.form import ready, with_biases
from smallcnn.transform.quantize.insert import insert
from smallcnn.transform.quantize.pixels import reading_pixels
from smallcnn.transform.quantize.post_training import Chosen, Report, Settings, choose, quantize
from smallcnn.transform.quantize.side_by_side import Layer, worst

__all__ = [
    "Chosen", "Layer", "Report", "Settings", "choose", "find_edges", "insert", "quantize", "reading_pixels", "ready",
    "with_biases", "without_integer_form", "worst",
]  # fmt: skip
