"""Zoph et al. 2018, "Learning Transferable Architectures for Scalable Image Recognition", arXiv 1707.07012."""

from smallcnn.papers.table import (
    TOP1,
    Row,
    Table,
    mult_adds,
    not_counted,
    parameters,
    remark,
    unclear,
)

_OTHER_CELLS = remark("cells from another search, given in the paper's appendix")

TABLES = (
    Table("nasnet.t3", "Mobile networks at 224 pixels", (
        Row("Inception V1", (
            mult_adds("1448 M", unclear("counted on the network of these parameters: batch norm, 3x3 in place of 5x5")),
            parameters("6.6 M"),
        ), "googlenet:variant=torchvision", accuracy="69.8"),
        Row("MobileNet-224", (mult_adds("569 M"), parameters("4.2 M")), "mobilenet_v1", accuracy="70.6"),
        Row("ShuffleNet (2x)", (
            mult_adds("524 M"), parameters("~5 M"),
        ), "shufflenet_v1:groups=3,scale=2", accuracy="70.9"),
        Row("NASNet-A (4 @ 1056)", (mult_adds("564 M"), parameters("5.3 M")), "nasnet_a_mobile", accuracy="74.0"),
        Row("NASNet-B (4 @ 1536)", not_counted({"Mult-Adds": "488 M", "parameters": "5.3 M"}, _OTHER_CELLS),
            accuracy="72.8"),
        Row("NASNet-C (3 @ 960)", not_counted({"Mult-Adds": "558 M", "parameters": "4.9 M"}, _OTHER_CELLS),
            accuracy="72.5"),
    ), TOP1),
)  # fmt: skip
