"""EffNet's comparison on CIFAR-10: Freeman et al. 2018, arXiv 1801.06434, Table 2."""

from dataclasses import replace

from smallcnn import papers
from smallcnn.study.definition import Row, Study
from smallcnn.train.recipes import named

(_PRINTED,) = papers.tables("effnet.t2")
_ACCURACY = {row.label: row.accuracy for row in _PRINTED.rows}

# label in the paper, options of effnet_cifar, images per second
_ROWS = (
    ("Baseline", "block=baseline", 280),
    ("EffNet large", "block=effnet,large=true", 170),
    ("MobileNet", "block=mobilenet", 1600),
    ("ShuffleNet", "block=shufflenet", 1600),
    ("EffNet", "block=effnet", 900),
    ("MobileNet large", "block=mobilenet,large=true", 920),
    ("ShuffleNet large", "block=shufflenet,large=true", 800),
)

TABLE_2 = Study(
    name="effnet-table2",
    title="EffNet's comparison on CIFAR-10",
    question="At a fraction of the baseline's cost, does EffNet's block lose less accuracy than MobileNet's and "
    "ShuffleNet's, and does a network of its cost beat the baseline?",
    source="Freeman et al. 2018 (arXiv 1801.06434), Table 2, means of five runs; optimizer, learning rate, beta1 and "
    "the lack of augmentation follow the paper; batch size, epochs, schedule and the widths of the large networks are "
    "ours, as the paper gives none",
    published="CIFAR-10 top-1, %",
    recipe=replace(named("effnet"), weight_decay=0, mirror=False, val_fraction=0.02),
    rows=tuple(
        Row(label, f"effnet_cifar:{options}", speed, _ACCURACY[label]) for label, options, speed in _ROWS
    ),
)  # fmt: skip
