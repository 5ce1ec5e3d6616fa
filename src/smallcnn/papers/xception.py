"""Chollet 2017, "Xception: Deep Learning with Depthwise Separable Convolutions", arXiv 1610.02357."""

from smallcnn.papers.table import TOP1, Row, Table, not_counted, parameters, remark

TABLES = (
    Table("xception.t3", "Size; accuracy from Table 1", (
        Row("Inception V3", not_counted({"parameters": "23,626,728"}), accuracy="78.2"),
        Row("Xception", (parameters("22,855,952", remark(
            "the caption says without fully-connected layers, but the number includes the classifier")),),
            "xception", accuracy="79.0"),
    ), TOP1),
)  # fmt: skip
