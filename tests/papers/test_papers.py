"""Published figures: what agrees, what does not and why. Exact counts follow from the papers' layer tables."""

from dataclasses import replace
from fractions import Fraction

import pytest

from smallcnn import papers, zoo
from smallcnn.errors import GraphError
from smallcnn.ir.builder import Builder
from smallcnn.papers import Figure, Row, Table
from smallcnn.papers.count import materialized

# Every figure that does not agree to the printed digits, by table and by what its note says: row, or row: quantity.
DIFFER = {
    "mobilenet_v1.t1": {"wrong": ["layer 26"]},
    "mobilenet_v1.t2": {"wrong": ["Conv 3x3: Mult-Adds"]},
    "mobilenet_v1.t4": {"convention": ["Conv MobileNet: Mult-Adds"]},
    "mobilenet_v1.t7": {"convention": ["1.0 MobileNet-160: Mult-Adds"]},
    "mobilenet_v1.t8": {
        "unclear": ["GoogleNet: Mult-Adds"],
        "convention": ["GoogleNet: parameters", "VGG 16: Mult-Adds"],
    },
    "mobilenet_v1.t9": {"wrong": ["Squeezenet: Mult-Adds"], "convention": ["0.50 MobileNet-160", "AlexNet"]},
    "mobilenet_v1.t10": {"convention": ["1.0 MobileNet-224: Mult-Adds", "1.0 MobileNet-192: Mult-Adds"]},
    "mobilenet_v1.t12": {
        "unclear": ["0.25 MobileNet-224: Mult-Adds", "0.25 MobileNet-128: Mult-Adds"],
        "convention": ["0.5 MobileNet-128: Mult-Adds"],
    },
    "mobilenet_v1.t13": {"unclear": ["SSD 300, deeplab-VGG: parameters"]},
    "mobilenet_v1.t14": {
        "unclear": ["1.0 MobileNet-160: Mult-Adds", "0.75 MobileNet-128: Mult-Adds"],  # 286 and 108
        "wrong": ["0.75 MobileNet-128: Mult-Adds"],  # 166
    },
    "mobilenet_v1.released": {
        "wrong": [f"{size}: Mult-Adds" for size in ("0.75_224", "0.75_192", "0.75_160", "0.75_128", "0.25_192")],
        "unclear": ["0.5_224: Mult-Adds"]
        + [f"{width}_{size}: parameters" for width in (1.0, 0.5) for size in (224, 192, 160, 128)],
    },
    "mobilenet_v1.text": {"wrong": ["PlaNet with MobileNet, section 4.4: Mult-Adds"]},
    "mobilenet_v2.t3": {
        "convention": [f"MobileNetV1, {size}: 16-bit memory" for size in ("112x112", "56x56", "28x28", "14x14", "max")]
        + ["MobileNetV2, 112x112", "MobileNetV2, 1x1: 16-bit memory", "MobileNetV2, max"]
        + ["ShuffleNet (2x, g=3), 56x56: 16-bit memory"],
        "wrong": ["MobileNetV1, 7x7: 16-bit memory", "MobileNetV2, 56x56", "MobileNetV2, 28x28", "MobileNetV2, 14x14"]
        + [f"ShuffleNet (2x, g=3), {size}" for size in ("28x28", "14x14", "7x7", "1x1", "max")],
        "unclear": ["MobileNetV2, 7x7: 16-bit memory", "ShuffleNet (2x, g=3), 112x112"],
    },
    "mobilenet_v2.t3_v3": {
        "convention": ["MobileNetV1, max"],
        "wrong": ["MobileNetV2, max", "ShuffleNet (2x, g=3), max"],
    },
    "mobilenet_v2.t4": {
        "wrong": ["MobileNetV1: Mult-Adds", "MobileNetV2 (1.4): parameters"],
        "convention": ["ShuffleNet (x2): parameters", "MobileNetV2: Mult-Adds"],
        "unclear": ["MobileNetV2: parameters", "MobileNetV2 (1.4): Mult-Adds"],
    },
    "mobilenet_v2.t5": {"convention": ["SSD: Mult-Adds"], "wrong": ["SSDLite: Mult-Adds"]},
    "mobilenet_v2.t6": {"unclear": ["SSD300"]},
    "mobilenet_v2.released": {
        "convention": [
            f"{size}: Mult-Adds"
            for size in ("1.0_224", "0.75_192", "0.5_192", "0.5_128", "0.5_96", "0.35_192", "0.35_160", "0.35_96")
        ]
    },
    "mobilenet_v2.text": {"wrong": ["bottleneck layers, section 4", "cheapest network, 0.35 at 96 pixels"]},
    "shufflenet_v1.t2": {
        "convention": [f"ShuffleNet 1x (g={groups})" for groups in (1, 2, 3, 4, 8)]
        + [f"ShuffleNet 0.5x (g={groups})" for groups in (1, 4, 8)],
        "unclear": ["ShuffleNet 0.25x (g=8)"],
    },
    "shufflenet_v1.t4": {
        "convention": ["ShuffleNet 1x (g=8)", "ShuffleNet 0.5x (g=4)"],
        "unclear": ["ShuffleNet 0.25x (g=8)"],
    },
    "shufflenet_v1.t5": {"convention": ["ShuffleNet 1x (g=8)", "ShuffleNet 0.5x (g=4)"]},
    "shufflenet_v1.t6": {
        "convention": ["VGG-16", "GoogleNet", "ShuffleNet 1x (g=8)", "AlexNet", "ShuffleNet 0.5x (g=4)"]
    },
    "effnet.t2": {"unclear": ["Baseline", "ShuffleNet", "EffNet"]},
    "squeezenet.t1": {"wrong": ["input image"]},
    "squeezenet.t2": {"convention": ["AlexNet"]},
    "squeezenet.t3": {"unclear": ["with complex bypass"]},
    "squeezenet.released": {"convention": ["SqueezeNet v1.0"], "unclear": ["SqueezeNet v1.1"]},
    "nasnet.t3": {"unclear": ["Inception V1: Mult-Adds"]},
    "googlenet.t1": {
        "convention": ["inception (3a): parameters", "linear: parameters"],
        "wrong": ["inception (4a)", "inception (5a)"]
        + [f"inception ({name}): parameters" for name in ("4c", "4d", "4e", "5b")],
        "unclear": ["inception (4b): parameters"],
    },
    "alexnet.text": {"convention": ["AlexNet"]},
    "shufflenet_v2.t5": {"unclear": ["0.5x: Mult-Adds"]},
    "shufflenet_v2.t8": {"unclear": ["ShuffleNet v2 0.5x"]},
    "mobilenet_v3.t3": {
        "unclear": ["V3-Large 1.0: Mult-Adds", "V3-Small 1.0: Mult-Adds"],
        "convention": ["V3-Large 1.0: parameters"],
    },
    "mobilenet_v3.released": {"unclear": ["Small minimalistic: Mult-Adds"]},
    "efficientnet_lite.released": {"unclear": ["EfficientNet-Lite0: Mult-Adds"]},
}  # fmt: skip


@pytest.fixture(scope="module")
def compared():
    return papers.compare(papers.tables())


def find(compared, table, row, quantity):
    return [e for e in compared if (e.table.id, e.row.label, e.figure.quantity) == (table, row, quantity)]


def test_what_differs_is_known(compared):
    found = {}
    for entry in compared:
        if entry.ours is not None and not entry.agrees:
            kinds = found.setdefault(entry.table.id, {})
            kinds.setdefault(entry.note.kind, set()).add((entry.row.label, entry.figure.quantity))
    expected = {}
    for table in papers.TABLES:
        for kind, names in DIFFER.get(table.id, {}).items():
            rows = [name.partition(": ") for name in names]
            quantities = {row.label: [figure.quantity for figure in row.figures] for row in table.rows}
            expected.setdefault(table.id, {})[kind] = {
                (row, quantity) for row, _, only in rows for quantity in ([only] if only else quantities[row])
            }
    assert found == expected


def test_notes_say_wrong_only_where_something_differs(compared):
    """... or where nothing is counted: a figure that agrees carries a remark at most."""
    assert {entry.note.kind for entry in compared if entry.agrees and entry.note} == {"remark"}


@pytest.mark.parametrize(("table", "row", "quantity", "ours"), [
    ("mobilenet_v1.t4", "Conv MobileNet", "Mult-Adds", 4_867_293_184),
    ("mobilenet_v1.t4", "Conv MobileNet", "parameters", 29_294_088),
    ("mobilenet_v1.t5", "Shallow MobileNet", "Mult-Adds", 307_323_392),
    ("mobilenet_v1.t3", "Convolution", "Mult-Adds", 462_422_016),
    ("mobilenet_v1.t3", "rho = 0.714", "Mult-Adds", 15_091_200),
    ("mobilenet_v1.t3", "alpha = 0.75", "parameters", 150_912),
    ("mobilenet_v1.t2", "Conv 3x3", "Mult-Adds", Fraction(10_838_016, 568_740_352)),
    ("mobilenet_v1.t2", "Fully Connected", "parameters", Fraction(1_024_000, 4_209_088)),
    ("mobilenet_v1.t8", "VGG 16", "parameters", 138_357_544),
    ("mobilenet_v1.t9", "Squeezenet", "Mult-Adds", 818_924_576),
    ("mobilenet_v1.t9", "AlexNet", "parameters", 60_965_224),
    ("mobilenet_v1.t10", "0.75 MobileNet-192", "parameters", 1_908_840),
    ("mobilenet_v1.t12", "0.25 MobileNet-128", "Mult-Adds", 13_314_048),
    ("mobilenet_v1.t12", "1.0 MobileNet-224", "parameters", 3_206_976),
    ("mobilenet_v1.t13", "SSD 300, deeplab-VGG", "parameters", 35_641_826),  # torchvision ssd300_vgg16, num_params
    ("mobilenet_v2.t4", "MobileNetV2 (1.4)", "parameters", 6_108_776),
    ("mobilenet_v2.released", "0.35_96", "Mult-Adds", 11_934_128),
    ("mobilenet_v2.released", "1.0_224", "parameters", 3_470_760),
    ("mobilenet_v2.text", "bottleneck layers, section 4", "blocks", 17),
    ("shufflenet_v1.t1", "g = 8", "complexity", 136_829_952),
    ("shufflenet_v1.t5", "ShuffleNet 2x (g=3)", "Mult-Adds", 524_045_184),
    ("shufflenet_v1.t6", "SqueezeNet", "Mult-Adds", 832_667_936),
    ("effnet.t2", "EffNet", "FLOPs", 2 * 5_640_192),
    ("squeezenet.t1", "fire6", "parameters", 104_880),
    ("squeezenet.t3", "with complex bypass", "size", 4 * 1_589_672),
    ("xception.t3", "Xception", "parameters", 22_855_952),
    ("nasnet.t3", "NASNet-A (4 @ 1056)", "Mult-Adds", 563_638_816),
    ("googlenet.t1", "convolution 7x7/2", "operations", 34_019_328),
    ("googlenet.t1", "inception (5a)", "parameters", 1_043_456),  # 1,042,432 weights and 1,024 biases
])  # fmt: skip
def test_exact_counts(compared, table, row, quantity, ours):
    (entry,) = find(compared, table, row, quantity)
    assert entry.ours == ours


# the known misprints, each with what has to be said about it
@pytest.mark.parametrize(("table", "row", "quantity", "says"), [
    ("mobilenet_v1.t1", "layer 26", "layer", "the stride is 1"),
    ("mobilenet_v1.t2", "Conv 3x3", "Mult-Adds", "digits swapped"),
    ("mobilenet_v1.t9", "Squeezenet", "Mult-Adds", "two per Mult-Add"),
    ("mobilenet_v1.t12", "Baseline", "parameters", "75 million"),
    ("mobilenet_v1.text", "PlaNet with MobileNet, section 4.4", "Mult-Adds", "Billion"),
    ("mobilenet_v2.t3", "MobileNetV1, 7x7", "16-bit memory", "take 100 KB"),
    ("mobilenet_v2.t3", "MobileNetV2, 28x28", "channels", "next stage"),
    ("mobilenet_v2.t3", "ShuffleNet (2x, g=3), 14x14", "channels", "2 groups"),
    ("mobilenet_v2.t4", "MobileNetV1", "Mult-Adds", "569 M"),
    ("mobilenet_v2.t4", "MobileNetV2 (1.4)", "parameters", "6.11 M"),
    ("mobilenet_v2.text", "bottleneck layers, section 4", "blocks", "17"),
    ("mobilenet_v2.text", "cheapest network, 0.35 at 96 pixels", "Mult-Adds", "11 M"),
    ("shufflenet_v1.t2", "ShuffleNet 0.5x (g=2)", "Mult-Adds", "not published"),
    ("shufflenet_v1.t5", "ShuffleNet 0.5x (shallow, g=3)", "Mult-Adds", "22 M"),
    ("squeezenet.t1", "input image", "output", "227"),
    ("squeezenet.t3", "with complex bypass", "size", "6.1 MB"),
    ("xception.t3", "Xception", "parameters", "classifier"),
    ("googlenet.t1", "convolution 7x7/2", "parameters", "separable"),
])  # fmt: skip
def test_misprints_have_notes(compared, table, row, quantity, says):
    (entry,) = find(compared, table, row, quantity)
    assert says in entry.note.text


def test_the_face_row_of_the_wrong_resolution(compared):
    """Table 14 has 0.75 MobileNet-128 twice, with 166 and 108 M."""
    first, second = find(compared, "mobilenet_v1.t14", "0.75 MobileNet-128", "Mult-Adds")
    assert first.ours == second.ours == 106_002_432
    assert "should read 160" in first.note.text
    at_160 = replace(first.row, resolution=160)
    (entry, _) = papers.compare([replace(first.table, rows=(at_160,))])
    assert entry.agrees


def test_the_claims_of_the_notes():
    """Arithmetic the notes rest on, from the printed tables alone."""
    assert round(94.86 + 3.06 + 1.19 + 0.18, 2) == 99.29
    assert round(2 * 7 * 7 * 1024 / 1000) == 100
    assert [2 * width for width in (200, 400, 800)] == [400, 800, 1600]
    assert 15_470_264_320 - 4096 * (7 * 7 * 512 + 4096 + 1000) == 15_346_630_656  # VGG16 without its dense layers
    assert 832_667_936 + (15**2 - 13**2) * 512 * 1000 == 861_339_936  # SqueezeNet 1.0, last layer padded
    assert round(2 * 861_339_936 / 1e9, 2) == 1.72
    assert 34 + 360 + 128 + 304 + 73 + 88 + 100 + 119 + 170 + 54 + 71 + 1 == 1502
    # googlenet.t1, in K of 1024: 4a and 5a print operations of their own parameters, the others of their filters
    for kilo, side, million in ((364, 14, 73), (1072, 7, 54)):
        assert round(kilo * 1024 * side**2 / 1e6) == million
    for kilo, side, million in ((463, 14, 100), (580, 14, 119), (840, 14, 170), (1388, 7, 71)):
        assert round(kilo * 1024 * side**2 / 1e6) != million


def test_every_model_is_in_the_registry():
    models = {row.model for table in papers.TABLES for row in table.rows if row.model}
    assert len(models) > 40
    for model in models:
        assert zoo.parse(model).name in zoo.names()


def test_tables_have_distinct_names_and_printed_numbers_can_be_read(compared):
    ids = [table.id for table in papers.TABLES]
    assert len(set(ids)) == len(ids)
    assert all(entry.figure.value > 0 for entry in compared if not isinstance(entry.ours, str))


@pytest.mark.parametrize(
    ("printed", "ours", "agrees", "shown"),
    [
        ("149 M", 149_497_088, True, "149.50 M"),
        ("4.2 M", 4_250_000, False, "4.250 M"),
        ("4.3 M", 4_250_000, True, "4.250 M"),  # a half rounds up
        ("1,248,424", 1_248_424, True, "1,248,424"),
        ("1,248,424", 1_248_425, False, "1,248,425"),
        ("0.02 %", Fraction(864, 4_209_088), True, "0.0205 %"),
        ("2.7 K", 2_776, False, "2.776 K"),
        ("~5 M", 5_450_776, True, "5.45 M"),
        ("7x7x1024", "7x7x1024", True, "7x7x1024"),
        ("7x7x1024", "4x4x1024", False, "4x4x1024"),
    ],
)
def test_rounding(printed, ours, agrees, shown):
    row = Row("row", (Figure("figure", printed, None if isinstance(ours, str) else ours),))
    (entry,) = papers.compare([Table("paper.t1", "", (row,))])
    entry = replace(entry, ours=ours)
    assert (entry.agrees, entry.shown) == (agrees, shown)


def test_what_is_not_counted_is_said_to_be_so():
    (entry,) = papers.compare([Table("paper.t1", "", (Row("row", (Figure("figure", "3 M"),)),))])
    assert (entry.agrees, entry.shown, entry.verdict, entry.difference) == (False, "-", "-", None)
    assert papers.summarize([entry]) == papers.Summary(1, 0, 0, 0, 0, 1)


def test_summary_adds_up(compared):
    total = papers.summarize(compared)
    parts = (total.agree, total.wrong, total.convention, total.unclear, total.not_counted)
    assert sum(parts) == total.figures == len(compared)
    assert total.wrong == sum(entry.note is not None and entry.note.kind == "wrong" and entry.ours is not None
                              for entry in compared)  # fmt: skip


def test_published_accuracy_is_what_the_paper_prints(compared):
    (entry,) = find(compared, "mobilenet_v1.t5", "0.75 MobileNet", "Mult-Adds")
    assert (entry.row.accuracy, entry.top1) == ("68.4", 68.4)
    (entry,) = find(compared, "shufflenet_v1.t6", "ShuffleNet 2x (g=3)", "Mult-Adds")
    assert (entry.row.accuracy, entry.top1) == ("26.3", 73.7)  # an error there
    (entry,) = find(compared, "effnet.t2", "EffNet", "FLOPs")
    assert (entry.row.accuracy, entry.top1) == ("80.20", None)  # of CIFAR-10


def test_networks_are_built_once(compared):
    by_model = {}
    for entry in compared:
        if entry.network:
            by_model.setdefault((entry.network.graph.name, entry.row.resolution, entry.row.classes), set()).add(
                id(entry.network)
            )
    assert all(len(networks) == 1 for networks in by_model.values())


def test_materialized_maps():
    """Inside a block nothing is stored; an average needs no map."""
    g = Builder(input=(8, 8, 3))
    x = g.conv(g.input, 5, kernel=3, stride=2, name="stem.conv")
    y = g.conv(x, 50, name="block1.expand")
    y = g.conv(y, 5, name="block1.project")
    x = g.add(x, y, name="block1.add")
    x = g.conv(g.conv(x, 40, stride=2, name="block2.wide"), 7, name="block2.narrow")
    features = g.conv(x, 90, name="last.conv")
    y = g.dense(g.global_pool(features, name="pool"), 11, name="classifier")
    assert materialized(g.graph(y, features=features, name="net")) == {4: 5, 2: 7, 1: 90}


def test_tables_by_name():
    assert [table.id for table in papers.tables("mobilenet_v1.t4")] == ["mobilenet_v1.t4"]
    assert {table.paper for table in papers.tables("squeezenet")} == {"squeezenet"}
    assert papers.tables() == papers.TABLES
    with pytest.raises(GraphError, match=r"^no table 'mobilenet_v1.t44'; closest: mobilenet_v1.t4"):
        papers.tables("mobilenet_v1.t44")
