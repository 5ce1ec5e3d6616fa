"""The networks that other papers compare against: GoogLeNet (arXiv 1409.4842), VGG-16 (1409.1556), AlexNet (2012)."""

from smallcnn.papers import count
from smallcnn.papers.table import CUT, Figure, Note, Row, Table, convention, parameters, remark, unclear, wrong

ALEXNET_720 = convention("rounded to two digits")
ALEXNET_60 = convention("rounded to one digit, as in the AlexNet paper")
VGG_15300 = convention("the convolutions alone, 15 347 M, to three digits")
GOOGLENET_68 = convention("the sum of GoogLeNet's Table 1, 6798 K, with K = 1024")

_SEPARABLE = remark("counts a separable 7x7 with 8 filters per channel; a full one has 9.4 K weights and 118 M")
_WEIGHTS = convention("without biases")
_FILTERS = wrong("does not match the line's filters; the operations printed next to it do")
_NEITHER = wrong("parameters and operations agree with each other, but not with the line's filters")
_NEARLY = unclear("does not match the line's filters")

# part of the network, K parameters of 1024, M operations, notes on both
_GOOGLENET = (
    ("convolution 7x7/2", ("conv1",), "2.7 K", "34 M", _SEPARABLE, _SEPARABLE),
    ("convolution 3x3/1", ("conv2", "conv3"), "112 K", "360 M", None, None),
    ("inception (3a)", ("inception3a",), "159 K", "128 M", CUT, None),
    ("inception (3b)", ("inception3b",), "380 K", "304 M", None, None),
    ("inception (4a)", ("inception4a",), "364 K", "73 M", _NEITHER, _NEITHER),
    ("inception (4b)", ("inception4b",), "437 K", "88 M", _NEARLY, None),
    ("inception (4c)", ("inception4c",), "463 K", "100 M", _FILTERS, None),
    ("inception (4d)", ("inception4d",), "580 K", "119 M", _FILTERS, None),
    ("inception (4e)", ("inception4e",), "840 K", "170 M", _FILTERS, None),
    ("inception (5a)", ("inception5a",), "1072 K", "54 M", _NEITHER, _NEITHER),
    ("inception (5b)", ("inception5b",), "1388 K", "71 M", _FILTERS, None),
    ("linear", ("classifier",), "1000 K", "1 M", _WEIGHTS, None),
)


def _line(label: str, parts: tuple[str, ...], kilo: str, million: str, *notes: Note | None) -> Row:
    return Row(label, (
        Figure("parameters", kilo, count.part_parameters(*parts), notes[0], unit=1024),
        Figure("operations", million, count.part_mult_adds(*parts), notes[1]),
    ), "googlenet:variant=separable_stem")  # fmt: skip


TABLES = (
    Table("googlenet.t1", "GoogLeNet, line by line; K = 1024", tuple(_line(*line) for line in _GOOGLENET)),
    Table("vgg16.t2", "Number of parameters", (
        Row("D", (parameters("138 M"),), "vgg16"),
    )),
    Table("alexnet.text", "Size in the abstract", (
        Row("AlexNet", (parameters("60 M", convention("rounded to one digit")),), "alexnet"),
    )),
)  # fmt: skip
