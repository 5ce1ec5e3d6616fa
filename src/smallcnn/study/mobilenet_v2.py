"""Linear bottlenecks and the place of shortcuts: Sandler et al. 2018, arXiv 1801.04381, Figure 6."""

from smallcnn.study.definition import SMALL, Row, Study

_MODEL = "mobilenet_v2:width=0.35,small_input=true"

BOTTLENECK = Study(
    name="bottleneck",
    title="MobileNetV2's bottlenecks",
    question="Does a ReLU6 after the projection cost accuracy, and do shortcuts belong between the bottlenecks or "
    "between the expansions?",
    source="Sandler et al. 2018 (arXiv 1801.04381), Figure 6, which shows curves without numbers: linear above ReLU6; "
    "shortcuts between bottlenecks above those between expansions above none; here width 0.35 with two fewer strides",
    published="",
    recipe=SMALL,
    rows=(
        Row("Linear, between bottlenecks", _MODEL, 190),
        Row("ReLU6 in bottlenecks", f"{_MODEL},bottleneck=nonlinear", 190),
        Row("Shortcuts between expansions", f"{_MODEL},residual=expansions", 170),
        Row("No shortcuts", f"{_MODEL},residual=none", 200),
    ),
)
