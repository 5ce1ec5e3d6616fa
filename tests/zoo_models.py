"""Every network of the zoo in every form that a paper, or the public code of its authors, has a figure for."""

import functools

from smallcnn import zoo
from smallcnn.ir.graph import Graph

DETECTORS = ("anchor_free", "ssd", "ssdlite")
CLASSIFIERS = tuple(name for name in zoo.names() if name not in DETECTORS)

MODELS = (
    # MobileNet v1, Tables 4 to 6; timm's mobilenetv1_125
    "mobilenet_v1",
    "mobilenet_v1:width=1.25",
    "mobilenet_v1:width=0.75",
    "mobilenet_v1:width=0.5",
    "mobilenet_v1:width=0.25",
    "mobilenet_v1:variant=conv",
    "mobilenet_v1:variant=shallow",
    # MobileNetV2, Table 4, the released widths and Figure 6; Gluon's form
    "mobilenet_v2",
    "mobilenet_v2:width=1.4",
    "mobilenet_v2:width=1.3",
    "mobilenet_v2:width=0.75",
    "mobilenet_v2:width=0.5",
    "mobilenet_v2:width=0.35",
    "mobilenet_v2:bottleneck=nonlinear",
    "mobilenet_v2:residual=expansions",
    "mobilenet_v2:residual=none",
    "mobilenet_v2:first_expansion=true",
    # ShuffleNet v1, Tables 1 and 2 (where the channels divide) and the released scales
    "shufflenet_v1",
    "shufflenet_v1:groups=1",
    "shufflenet_v1:groups=2",
    "shufflenet_v1:groups=4",
    "shufflenet_v1:groups=8",
    "shufflenet_v1:groups=1,scale=0.25",
    "shufflenet_v1:scale=0.25",
    "shufflenet_v1:groups=8,scale=0.25",
    "shufflenet_v1:groups=1,scale=0.5",
    "shufflenet_v1:scale=0.5",
    "shufflenet_v1:groups=4,scale=0.529412",  # Table 4's 576 channels in the last stage
    "shufflenet_v1:groups=8,scale=0.5",
    "shufflenet_v1:scale=1.5",
    "shufflenet_v1:groups=8,scale=1.5",
    "shufflenet_v1:scale=2",
    "shufflenet_v1:groups=8,scale=2",
    # its Table 3, the released shuffle, Table 5
    "shufflenet_v1:shuffle=none",
    "shufflenet_v1:groups=8,shuffle=none",
    "shufflenet_v1:shuffle=released",
    "shufflenet_v1:groups=8,shuffle=released",
    "shufflenet_v1:scale=2,se=true",
    # EffNet, Tables 1, 2 and 5, and the ImageNet-sized network, which is ours
    "effnet_cifar",
    "effnet_cifar:block=baseline",
    "effnet_cifar:block=mobilenet",
    "effnet_cifar:block=shufflenet",
    "effnet_cifar:large=true",
    "effnet_cifar:block=mobilenet,large=true",
    "effnet_cifar:block=shufflenet,large=true",
    "effnet_cifar:block=revised",
    "effnet_cifar:block=revised,expansion=4",
    "effnet_cifar:block=revised,expansion=2",
    "effnet",
    "effnet:width=0.5",
    # SqueezeNet, Table 3; the same bypasses around the released 1.1
    "squeezenet_1_0",
    "squeezenet_1_0:bypass=simple",
    "squeezenet_1_0:bypass=complex",
    "squeezenet_1_1",
    "squeezenet_1_1:bypass=simple",
    "squeezenet_1_1:bypass=complex",
    # what they are compared with
    "googlenet",
    "googlenet:variant=separable_stem",
    "googlenet:variant=torchvision",
    "alexnet",
    "alexnet:variant=ungrouped",
    "alexnet:variant=one_tower",
    "vgg16",
    "xception",
    "nasnet_a_mobile",
    # later networks: ShuffleNetV2 Table 8 in both forms, MobileNetV3 Table 3 and the minimalistic release
    "shufflenet_v2",
    "shufflenet_v2:scale=0.5",
    "shufflenet_v2:scale=1.5",
    "shufflenet_v2:scale=2",
    "shufflenet_v2:shuffle=released",
    "shufflenet_v2:scale=0.5,shuffle=released",
    "shufflenet_v2:scale=1.5,shuffle=released",
    "shufflenet_v2:scale=2,shuffle=released",
    "mobilenet_v3_large",
    "mobilenet_v3_large:width=0.75",
    "mobilenet_v3_large:minimalistic=true",
    "mobilenet_v3_small",
    "mobilenet_v3_small:width=0.75",
    "mobilenet_v3_small:hidden=1280",
    "mobilenet_v3_small:width=0.75,hidden=1280",
    "mobilenet_v3_small:minimalistic=true",
    "mobilenet_v4_conv_small",
    "efficientnet_lite0",
    # TensorFlow's networks as PyTorch's public weights have them
    "mobilenet_v1:padding=symmetric,epsilon=1e-05",
    "mobilenet_v2:padding=symmetric,epsilon=1e-05",
    "mobilenet_v3_large:padding=symmetric",
    "mobilenet_v3_small:padding=symmetric",
    "mobilenet_v4_conv_small:padding=symmetric,epsilon=1e-05",
    "efficientnet_lite0:padding=symmetric,epsilon=1e-05",
    "xception:padding=symmetric,epsilon=1e-05",
)

SMALL = tuple(f"{name}:small_input=true" for name in zoo.names() if "small_input" in zoo.options(name))
"""The form of each classifier for images of 28 to 64 pixels."""

DETECTOR_MODELS = (
    # MobileNet v1's Table 13; MobileNetV2's Tables 5 and 6; torchvision's two
    "ssd",
    "ssd:backbone=vgg16",
    "ssd:backbone=mobilenet_v2,predictor=3x3",
    "ssdlite",
    "ssdlite:backbone=mobilenet_v1",
    "ssdlite:backbone=mobilenet_v3_large,reduced_tail=true,padding=symmetric,form=torchvision",
    "anchor_free",
)
"""The detectors, likewise."""


@functools.cache
def build(text: str, **common: object) -> Graph:
    """The network called `text`, built once for each size."""
    return zoo.parse(text).build(**common)


LAST_PLANES = (
    ({}, (7, 7)),
    ({"resolution": 97}, (4, 4)),  # 97 49 25 13 7 4
    ({"resolution": 97, "padding": "symmetric"}, (4, 4)),
    ({"resolution": (96, 161)}, (3, 6)),
    ({"resolution": 1}, (1, 1)),
    ({"resolution": 32, "small_input": True}, (4, 4)),
    ({"resolution": 28, "small_input": True}, (4, 4)),
)
"""Options, and the plane of the features, of a network at 224 pixels that halves the plane five times."""
