"""TFLite_Detection_PostProcess: the end of an SSD in TensorFlow Lite files.

Inputs are codes (1, N, 4), y before x, scores (1, N, classes + 1) or (1, N, classes), and anchors (N, 4): centre y,
centre x, height, width. A box has its best class only unless `use_regular_nms`, which takes each class on its own.
"""

import numpy as np

from smallcnn.errors import FileError
from smallcnn.foreign import detectors
from smallcnn.foreign.network import Network
from smallcnn.foreign.views import Array
from smallcnn.ir import ops
from smallcnn.ir.graph import Node
from smallcnn.tflite.call import Call

_SCALES = ("x_scale", "y_scale", "w_scale", "h_scale")


def post_process(net: Network, call: Call) -> dict[str, Node]:
    """The outputs of the detector that ends in this operator, by name."""
    coded, scores = (_rows(net, call, i) for i in range(2))
    classes, columns = call.option("num_classes"), scores.shape[-1]
    if columns not in (classes, classes + 1):
        raise FileError(f"has scores of {columns} classes for {classes}")
    x, y, width, height = (call.setting(name, 0.0) for name in _SCALES)
    if x != y or width != height or min(x, width) <= 0:
        raise FileError(f"has scales {x:g}, {y:g}, {width:g}, {height:g}; those of an axis pair must be equal")
    across = not call.option("use_regular_nms")
    if across and call.option("max_classes_per_detection", 1) != 1:
        raise FileError("gives a box several classes")
    if not across and call.option("detections_per_class", 100) < call.option("max_detections"):
        raise FileError("takes fewer boxes of a class than of all")
    anchors, rounding = _anchors(call)
    raw, score = detectors.without_sigmoid(net, scores)
    op = ops.Detect(
        anchors=detectors.grids(net, coded, anchors, rounding),
        score=score,
        background=columns > classes,
        centre="linear",
        size="exp",
        centre_scale=1 / x,
        size_scale=1 / width,
        y_first=True,
        clip=False,
        across=across,
        threshold=_fraction(call, "nms_score_threshold"),
        overlap=_fraction(call, "nms_iou_threshold"),
        most=call.option("max_detections"),
    )
    return detectors.outputs(net, op, [coded, raw], "detect")


def _rows(net: Network, call: Call, index: int) -> Node:
    view = net.rows(call.view(index))
    if view is None:
        raise FileError(f"reads codes or scores {call.view(index).sizes}, which are not rows of maps")
    return view.node


def _anchors(call: Call) -> tuple[Array, float]:
    """Centre x, centre y, width, height, and by how much bytes rounded them."""
    values = np.asarray(call.real(2, "list of anchors"), np.float64)
    if values.ndim != 2 or values.shape[1] != 4:
        raise FileError(f"has anchors {values.shape}, not (N, 4)")
    grid = call.tensor(2).grid
    return values[:, [1, 0, 3, 2]], 0.0 if grid is None else grid.scale / 2


def _fraction(call: Call, name: str) -> float:
    """A setting from 0 to 1, as the decimal number that was written."""
    value = call.setting(name, 0.0)
    return float(str(np.float32(value))) if 0 <= value <= 1 else value
