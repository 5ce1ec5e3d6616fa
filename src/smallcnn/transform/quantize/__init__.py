"""Quantization: a float network becomes one that computes with bytes."""

from smallcnn.transform.quantize.edges import edges, find_edges, groups, without_integer_form
from smallcnn.transform.quantize.form import ready
from smallcnn.transform.quantize.insert import insert
from smallcnn.transform.quantize.post_training import Report, Settings, observed, quantize
from smallcnn.transform.quantize.side_by_side import Layer, worst

__all__ = [
    "Layer", "Report", "Settings", "edges", "find_edges", "groups", "insert", "observed", "quantize", "ready",
    "without_integer_form", "worst",
]  # fmt: skip
