"""Known accuracies of the networks: published by the paper, and the best reached since by retraining.

None are ours. A published accuracy is looked up in the paper's table; the sources of the others are

    timm         github.com/huggingface/pytorch-image-models, results/results-imagenet.csv
    torchvision  pytorch/vision 0.29, torchvision/models
    imgclsmob    github.com/osmr/imgclsmob, gluon/README.md (100 - top-1 error)
    megvii       github.com/megvii-model/ShuffleNet-Series (100 - top-1 error)
    PaddleClas   github.com/PaddlePaddle/PaddleClas, docs, model list; ssld is its distillation
"""

from dataclasses import dataclass
from decimal import Decimal

from smallcnn import zoo
from smallcnn.papers import TABLES
from smallcnn.papers.table import TOP1, TOP1_ERROR

_RESOLUTION = 224
"""The resolution used here, if a table has several for a network."""


@dataclass(frozen=True)
class Accuracy:
    """Top-1 in per cent, on ImageNet unless `source` says otherwise, at the network's own resolution."""

    top1: str
    source: str

    def __str__(self) -> str:
        return f"{self.top1} {self.source}"


@dataclass(frozen=True)
class Known:
    """A network, as `smallcnn list` spells it, and its known accuracies.

    `paper` is the table with its published accuracy (an id of `smallcnn papers`), or the accuracy itself without such
    a table; `retrained` goes from low to high.
    """

    model: str
    paper: str | Accuracy = ""
    retrained: tuple[Accuracy, ...] = ()

    @property
    def published(self) -> Accuracy | None:
        """The accuracy of the paper or its authors' released checkpoint; None if none is published."""
        if isinstance(self.paper, Accuracy):
            return self.paper
        if not self.paper:
            return None
        (table,) = [table for table in TABLES if table.id == self.paper]
        model = str(zoo.parse(self.model))
        (printed,) = {
            row.accuracy
            for row in table.rows
            if row.model and str(zoo.parse(row.model)) == model and row.resolution in (None, _RESOLUTION)
        }
        if table.accuracy == TOP1_ERROR:
            return Accuracy(str(100 - Decimal(printed)), table.id)
        return Accuracy(printed, table.id if table.accuracy == TOP1 else f"on {table.accuracy.split()[0]}, {table.id}")


def _known(model: str, paper: str | Accuracy = "", *retrained: tuple[str, str]) -> Known:
    return Known(model, paper, tuple(Accuracy(*one) for one in retrained))


MODELS = (
    _known("mobilenet_v1", "mobilenet_v1.t4", ("75.388", "timm mobilenetv1_100.ra4_e3600_r224_in1k"),
           ("77.89", "PaddleClas MobileNetV1_ssld, distilled")),
    _known("mobilenet_v1:width=1.25", "", ("76.920", "timm mobilenetv1_125")),
    _known("mobilenet_v1:width=0.75", "mobilenet_v1.t6", ("70.15", "imgclsmob")),
    _known("mobilenet_v1:width=0.5", "mobilenet_v1.t6", ("66.06", "imgclsmob")),
    _known("mobilenet_v1:width=0.25", "mobilenet_v1.t6", ("54.22", "imgclsmob")),
    _known("mobilenet_v1:variant=conv", "mobilenet_v1.t4"),
    _known("mobilenet_v1:variant=shallow", "mobilenet_v1.t5"),
    _known("mobilenet_v2:width=1.4", "mobilenet_v2.t4", ("76.528", "timm mobilenetv2_140.ra_in1k")),
    _known("mobilenet_v2:width=1.3", "mobilenet_v2.released"),
    _known("mobilenet_v2", "mobilenet_v2.t4", ("72.910", "timm mobilenetv2_100.ra_in1k"),
           ("76.7", "PaddleClas MobileNetV2_ssld, distilled")),
    _known("mobilenet_v2:first_expansion=true", "", ("73.23", "imgclsmob")),
    _known("mobilenet_v2:width=0.75", "mobilenet_v2.released"),
    _known("mobilenet_v2:width=0.5", "mobilenet_v2.released", ("65.928", "timm mobilenetv2_050.lamb_in1k")),
    _known("mobilenet_v2:width=0.35", "mobilenet_v2.released"),
    _known("shufflenet_v1:scale=2", "shufflenet_v1.t5", ("74.1", "megvii")),
    _known("shufflenet_v1:scale=2,se=true", "shufflenet_v1.t5"),
    _known("shufflenet_v1:scale=1.5", "shufflenet_v1.t5", ("71.6", "megvii")),
    _known("shufflenet_v1:groups=1", "shufflenet_v1.t2"),
    _known("shufflenet_v1:groups=2", "shufflenet_v1.t2"),
    _known("shufflenet_v1", "shufflenet_v1.t2", ("67.8", "megvii")),
    _known("shufflenet_v1:groups=4", "shufflenet_v1.t2"),
    _known("shufflenet_v1:groups=8", "shufflenet_v1.t2", ("68.0", "megvii")),
    _known("shufflenet_v1:scale=0.5", "shufflenet_v1.t2", ("57.3", "megvii")),
    _known("shufflenet_v1:groups=4,scale=0.529412", "shufflenet_v1.t2"),
    _known("shufflenet_v1:groups=8,scale=0.5", "shufflenet_v1.t2", ("58.8", "megvii")),
    _known("effnet_cifar:block=baseline", "effnet.t2"),
    _known("effnet_cifar:block=mobilenet", "effnet.t2"),
    _known("effnet_cifar:block=shufflenet", "effnet.t2"),
    _known("effnet_cifar", "effnet.t2"),
    _known("effnet_cifar:block=mobilenet,large=true"),
    _known("effnet_cifar:block=shufflenet,large=true"),
    _known("effnet_cifar:large=true"),
    _known("effnet_cifar:block=revised,expansion=2", "effnet.t5"),
    _known("effnet_cifar:block=revised,expansion=4", "effnet.t5"),
    _known("effnet_cifar:block=revised", "effnet.t5"),
    _known("effnet"),
    _known("squeezenet_1_0", "squeezenet.t3", ("61.27", "imgclsmob")),
    _known("squeezenet_1_0:bypass=simple", "squeezenet.t3"),
    _known("squeezenet_1_0:bypass=complex", "squeezenet.t3"),
    _known("squeezenet_1_1", "", ("60.91", "imgclsmob")),
    _known("xception", "xception.t3", ("79.57", "imgclsmob")),
    _known("nasnet_a_mobile", "nasnet.t3", ("74.84", "imgclsmob")),
    _known("googlenet", "mobilenet_v1.t8"),
    _known("googlenet:variant=separable_stem"),
    _known("googlenet:variant=torchvision", "", ("69.778", "torchvision googlenet")),
    _known("vgg16", "mobilenet_v1.t8", ("73.39", "imgclsmob")),
    _known("alexnet", "mobilenet_v1.t9"),
    _known("alexnet:variant=ungrouped", "", ("61.93", "imgclsmob")),
    _known("alexnet:variant=one_tower", "", ("56.522", "torchvision alexnet")),
    _known("shufflenet_v2:scale=0.5", "", ("60.552", "torchvision shufflenet_v2_0.5")),
    _known("shufflenet_v2", "", ("69.362", "torchvision shufflenet_v2_1.0")),
    _known("shufflenet_v2:scale=1.5", "", ("72.996", "torchvision shufflenet_v2_1.5")),
    _known("shufflenet_v2:scale=2", "", ("76.230", "torchvision shufflenet_v2_2.0")),
    _known("shufflenet_v2:scale=0.5,shuffle=released", "shufflenet_v2.t8"),
    _known("shufflenet_v2:shuffle=released", "shufflenet_v2.t8"),
    _known("shufflenet_v2:scale=1.5,shuffle=released", "shufflenet_v2.t8"),
    _known("shufflenet_v2:scale=2,shuffle=released", "shufflenet_v2.t8"),
    _known("mobilenet_v3_large", "mobilenet_v3.t3", ("75.766", "timm mobilenetv3_large_100.ra_in1k")),
    _known("mobilenet_v3_large:width=0.75", "mobilenet_v3.t3"),
    _known("mobilenet_v3_large:minimalistic=true", "mobilenet_v3.released"),
    _known("mobilenet_v3_small", "", ("67.668", "torchvision mobilenet_v3_small")),
    _known("mobilenet_v3_small:hidden=1280", "mobilenet_v3.t3"),
    _known("mobilenet_v3_small:minimalistic=true", "mobilenet_v3.released"),
    _known("mobilenet_v4_conv_small", Accuracy("73.8", "arXiv 2404.10518, quoted by PaddleClas"),
           ("73.756", "timm mobilenetv4_conv_small.e2400_r224_in1k")),
    _known("efficientnet_lite0", "efficientnet_lite.released", ("75.480", "timm efficientnet_lite0.ra_in1k")),
    _known("anchor_free"),
    _known("ssd", "mobilenet_v1.t13"),
    _known("ssd:backbone=vgg16", "mobilenet_v1.t13"),
    _known("ssdlite", "mobilenet_v2.t6"),
    _known("ssdlite:backbone=mobilenet_v1", "mobilenet_v2.t6"),
    _known("ssdlite:backbone=mobilenet_v3_large,reduced_tail=true,padding=symmetric,form=torchvision",
           Accuracy("21.3", "on COCO, torchvision ssdlite320_mobilenet_v3_large")),
)  # fmt: skip
