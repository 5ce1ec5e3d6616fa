"""The registered networks, one file per paper, each written from the paper's table.

graph = zoo.mobilenet_v1(width=0.5, resolution=192, classes=5)
graph = zoo.parse("mobilenet_v1:width=0.5").build(resolution=192, classes=5)
"""

from smallcnn.zoo.alexnet import alexnet
from smallcnn.zoo.anchor_free import anchor_free
from smallcnn.zoo.efficientnet_lite import efficientnet_lite0
from smallcnn.zoo.effnet import effnet, effnet_cifar
from smallcnn.zoo.googlenet import googlenet
from smallcnn.zoo.mobilenet_v1 import mobilenet_v1
from smallcnn.zoo.mobilenet_v2 import mobilenet_v2
from smallcnn.zoo.mobilenet_v3 import mobilenet_v3_large, mobilenet_v3_small
from smallcnn.zoo.mobilenet_v4 import mobilenet_v4_conv_small
from smallcnn.zoo.nasnet import nasnet_a_mobile
from smallcnn.zoo.options import Option
from smallcnn.zoo.registry import Configuration, names, options, parse, spell
from smallcnn.zoo.shufflenet_v1 import shufflenet_v1
from smallcnn.zoo.shufflenet_v2 import shufflenet_v2
from smallcnn.zoo.squeezenet import squeezenet_1_0, squeezenet_1_1
from smallcnn.zoo.ssd import ssd, ssdlite
from smallcnn.zoo.vgg import vgg16
from smallcnn.zoo.xception import xception

__all__ = [
    "Configuration",
    "Option",
    "alexnet",
    "anchor_free",
    "efficientnet_lite0",
    "effnet",
    "effnet_cifar",
    "googlenet",
    "mobilenet_v1",
    "mobilenet_v2",
    "mobilenet_v3_large",
    "mobilenet_v3_small",
    "mobilenet_v4_conv_small",
    "names",
    "nasnet_a_mobile",
    "options",
    "parse",
    "shufflenet_v1",
    "shufflenet_v2",
    "spell",
    "squeezenet_1_0",
    "squeezenet_1_1",
    "ssd",
    "ssdlite",
    "vgg16",
    "xception",
]  # fmt: skip
