"""Small networks against ResNet-20, the usual yardstick on CIFAR-10, with one recipe on the same files."""

from smallcnn.study.definition import SMALL, Row, Study
from smallcnn.study.resnet import resnet20

RESNET_20 = Study(
    name="resnet20",
    title="Small networks against ResNet-20",
    question="Which networks beat ResNet-20 with no more Mult-Adds, and which with no more parameters?",
    source="He et al. 2015 (arXiv 1512.03385), Table 6: 8.75 % error after 64,000 steps of 128 images; we train fewer",
    published="CIFAR-10 top-1, %",
    recipe=SMALL,
    rows=(
        Row("ResNet-20", resnet20, 190, "91.25"),
        Row("MobileNet 0.32, full", "mobilenet_v1:width=0.32,variant=conv,small_input=true", 170),
        Row("MobileNetV3-Large 0.7", "mobilenet_v3_large:width=0.7,small_input=true", 140),
        Row("MobileNetV2 0.5", "mobilenet_v2:width=0.5,small_input=true", 180),
        Row("EffNet revised, expansion 2", "effnet_cifar:block=revised,expansion=2", 250),
    ),
)
