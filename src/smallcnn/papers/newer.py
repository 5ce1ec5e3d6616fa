"""ShuffleNetV2 (arXiv 1807.11164), MobileNetV3 (1905.02244v3), and EfficientNet-Lite as released by its authors."""

from smallcnn.papers.table import (
    CUT,
    TOP1,
    TOP1_ERROR,
    Row,
    Table,
    mult_adds,
    not_counted,
    parameters,
    remark,
    unclear,
)

_SMALL = "mobilenet_v3_small:hidden=1280"  # the paper's width; released networks have 1024
_SHUFFLENET = "shufflenet_v2:shuffle=released"  # torchvision's form, our default, has narrower stride-2 shortcuts
_MORE = unclear("the layers of Table 5 give 40.5 M, both in the authors' code and in torchvision")
_SE = remark("the paper does not print the ratio of its squeeze-and-excitation")

TABLES = (
    Table("shufflenet_v2.t5", "ShuffleNetV2 architecture", (
        Row("0.5x", (mult_adds("41 M"), parameters("1.4 M")), f"{_SHUFFLENET},scale=0.5"),
        Row("1x", (mult_adds("146 M"), parameters("2.3 M")), _SHUFFLENET),
        Row("1.5x", (mult_adds("299 M"), parameters("3.5 M")), f"{_SHUFFLENET},scale=1.5"),
        Row("2x", (mult_adds("591 M"), parameters("7.4 M")), f"{_SHUFFLENET},scale=2"),
    ), note=_MORE),
    Table("shufflenet_v2.t8", "ShuffleNetV2 on ImageNet", (
        Row("ShuffleNet v2 0.5x", (mult_adds("41 M"),), f"{_SHUFFLENET},scale=0.5", accuracy="39.7"),
        Row("ShuffleNet v2 1x", (mult_adds("146 M"),), _SHUFFLENET, accuracy="30.6"),
        Row("ShuffleNet v2 1.5x", (mult_adds("299 M"),), f"{_SHUFFLENET},scale=1.5", accuracy="27.4"),
        Row("ShuffleNet v2 2x", (mult_adds("591 M"),), f"{_SHUFFLENET},scale=2", accuracy="25.1"),
        Row("ShuffleNet v2 2x with SE", not_counted({"Mult-Adds": "597 M"}, _SE), accuracy="24.6"),
    ), TOP1_ERROR, _MORE),
    Table("mobilenet_v3.t3", "Floating point performance on Pixel phones", (
        Row("V3-Large 1.0", (
            mult_adds("219 M", unclear("the released network has 217 M")),
            parameters("5.4 M", CUT),
        ), "mobilenet_v3_large", accuracy="75.2"),
        Row("V3-Large 0.75", (mult_adds("155 M"), parameters("4.0 M")), "mobilenet_v3_large:width=0.75",
            accuracy="73.3"),
        Row("MnasNet-A1", not_counted({"Mult-Adds": "315 M", "parameters": "3.9 M"}), accuracy="75.2"),
        Row("V3-Small 1.0", (
            mult_adds("66 M", unclear("does not match the layers of Table 2; at 0.75 they agree, at 44 M")),
            parameters("2.9 M"),
        ), _SMALL, accuracy="67.4"),
        Row("V3-Small 0.75", (mult_adds("44 M"), parameters("2.4 M")), f"{_SMALL},width=0.75", accuracy="65.4"),
    ), TOP1),
    Table("mobilenet_v3.released", "Released checkpoints (tensorflow/models, research/slim, mobilenet)", (
        Row("Large", (mult_adds("217 M"),), "mobilenet_v3_large"),
        Row("Large minimalistic", (mult_adds("209 M"), parameters("3.9 M")), "mobilenet_v3_large:minimalistic=true",
            accuracy="72.3"),
        Row("Small minimalistic", (
            mult_adds("65 M", unclear("does not match the layers, like the 66 M of the paper's V3-Small")),
            parameters("2.0 M"),
        ), "mobilenet_v3_small:minimalistic=true", accuracy="61.9"),
    ), TOP1),
    Table("efficientnet_lite.released", "EfficientNet-Lite0 (tensorflow/tpu, models/official/efficientnet/lite)", (
        Row("EfficientNet-Lite0", (mult_adds("407 M", unclear("the layers give 385 M")), parameters("4.7 M")),
            "efficientnet_lite0", accuracy="75.1"),
    ), TOP1),
)  # fmt: skip
