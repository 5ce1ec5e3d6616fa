import pytest

from smallcnn import zoo
from smallcnn.cost.profile import profile
from smallcnn.errors import GraphError
from smallcnn.ir import ops

# Howard et al. 2017, arXiv 1704.04861: Table 1 layer by layer

# Mult-Adds and weights of the convolution, of each (depthwise, pointwise) pair, and of the classifier
STEM = (10_838_016, 864)
DEPTHWISE = [
    (3_612_672, 288), (1_806_336, 576), (3_612_672, 1_152), (903_168, 1_152), (1_806_336, 2_304), (451_584, 2_304),
    *[(903_168, 4_608)] * 5, (225_792, 4_608), (451_584, 9_216),
]  # fmt: skip
POINTWISE = [
    (25_690_112, 2_048), (25_690_112, 8_192), (51_380_224, 16_384), (25_690_112, 32_768), (51_380_224, 65_536),
    (25_690_112, 131_072), *[(51_380_224, 262_144)] * 5, (25_690_112, 524_288), (51_380_224, 1_048_576),
]  # fmt: skip
CLASSIFIER = (1_024_000, 1_025_000)  # with its 1,000 biases

# total parameters by width, with the Mult-Adds at 224, 192, 160 and 128 pixels
GRID = {
    1.0: (4_231_976, [568_740_352, 418_121_728, 290_675_200, 186_400_768]),
    0.75: (2_585_560, [325_400_448, 239_273_472, 166_396_800, 106_770_432]),
    0.5: (1_331_592, [149_497_088, 109_970_432, 76_524_800, 49_160_192]),
    0.25: (470_072, [41_030_272, 30_212_608, 21_059_200, 13_570_048]),
}


def test_mobilenet_v1_layer_by_layer():
    layers = profile(zoo.mobilenet_v1()).layers
    got = [(layer.mult_adds, layer.parameters) for layer in layers if layer.mult_adds]
    pairs = [layer for pair in zip(DEPTHWISE, POINTWISE, strict=True) for layer in pair]
    assert got == [STEM, *pairs, CLASSIFIER]


@pytest.mark.parametrize("width", GRID)
@pytest.mark.parametrize(("column", "resolution"), [*enumerate([224, 192, 160, 128])])
def test_mobilenet_v1_sixteen_models(width, column, resolution):
    parameters, totals = GRID[width]
    cost = profile(zoo.mobilenet_v1(width=width, resolution=resolution))
    assert cost.mult_adds == totals[column]
    assert cost.parameters == parameters


@pytest.mark.parametrize(
    ("variant", "want_mult_adds", "want_parameters"),
    [("conv", 4_867_293_184, 29_294_088), ("shallow", 307_323_392, 2_887_976)],  # Tables 4 and 5
)
def test_mobilenet_v1_variants(variant, want_mult_adds, want_parameters):
    cost = profile(zoo.mobilenet_v1(variant=variant))
    assert (cost.mult_adds, cost.parameters) == (want_mult_adds, want_parameters)


def test_mobilenet_v1_shares_per_layer_type():
    """Table 2. It prints 1.19 % for the 3x3 convolution, whose column then does not add up to 100: it is 1.91 %."""
    cost = profile(zoo.mobilenet_v1())
    totals = {total.type: total for total in cost.by_type()}
    shares = {name: round(100 * total.mult_adds / cost.mult_adds, 2) for name, total in totals.items()}
    assert {name: share for name, share in shares.items() if share} == {
        "conv 1x1": 94.86, "depthwise conv 3x3": 3.06, "conv 3x3": 1.91, "dense": 0.18,
    }  # fmt: skip
    counted = {name: total.parameters for name, total in totals.items() if total.parameters and name != "batch norm"}
    assert counted == {"conv 1x1": 3_139_584, "dense": 1_025_000, "depthwise conv 3x3": 44_640, "conv 3x3": 864}
    assert totals["batch norm"].parameters == 21_888


def test_mobilenet_v1_has_28_layers_of_weights():
    convolutions = [node for node in zoo.mobilenet_v1() if isinstance(node.op, ops.Conv)]
    assert len(convolutions) + 1 == 28


def test_mobilenet_v1_follows_the_released_code():
    graph = zoo.mobilenet_v1(width=0.1)
    channels = {node.shape[2] for node in graph if isinstance(node.op, ops.Conv)}
    assert channels == {8, 12, 25, 51, 102}, "int(width * channels), at least 8"
    assert {n.op.function for n in graph if isinstance(n.op, ops.Activation)} == {"relu6"}
    assert {n.op.epsilon for n in graph if isinstance(n.op, ops.BatchNorm)} == {0.001}
    assert {n.op.padding for n in graph if isinstance(n.op, ops.Conv) and n.op.stride == (2, 2)} == {((0, 1), (0, 1))}


@pytest.mark.parametrize(
    ("options", "plane"),
    [
        ({}, (7, 7)),
        ({"resolution": 225}, (8, 8)),  # 225 113 57 29 15 8: odd sides round up five times
        ({"resolution": 97}, (4, 4)),
        ({"resolution": (96, 160)}, (3, 5)),
        ({"resolution": 1}, (1, 1)),
        ({"small_input": True, "resolution": 32}, (2, 2)),
        ({"small_input": True, "resolution": 28}, (2, 2)),
        ({"variant": "conv", "resolution": 64}, (2, 2)),
        ({"variant": "shallow", "resolution": 64}, (2, 2)),
    ],
    ids=str,
)
def test_mobilenet_v1_last_plane(options, plane):
    graph = zoo.mobilenet_v1(**options)
    assert graph[graph.features].shape == (*plane, 1024)


def test_small_input_differs_only_in_the_first_stride():
    usual, small = zoo.mobilenet_v1(), zoo.mobilenet_v1(small_input=True)
    assert usual["stem.conv"].op.stride == (2, 2)
    assert small["stem.conv"].op.stride == (1, 1)
    assert usual.weights == small.weights


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"width": 0}, "width must be above 0 and at most 8, not 0; the paper uses 0.25, 0.5, 0.75 and 1"),
        ({"width": -0.5}, "width must be above 0 and at most 8, not -0.5"),
        ({"width": float("nan")}, "width must be above 0 and at most 8, not nan"),
        ({"width": float("inf")}, "width must be above 0 and at most 8, not inf"),
        ({"width": "0.5"}, "width must be a number, not '0.5'"),
        ({"width": True}, "width must be a number, not True"),
        ({"variant": "shalow"}, "variant must be separable or conv or shallow, not 'shalow'"),
        ({"small_input": 1}, "small_input must be true or false, not 1"),
        ({"resolution": 0}, r"resolution must be \(height, width\) or one number for both, at least 1, not 0"),
        ({"resolution": 224.0}, "resolution must be .* not 224.0"),
        ({"resolution": (224,)}, r"resolution must be .* not \(224,\)"),
        ({"resolution": (224, -1)}, r"resolution must be .* not \(224, -1\)"),
        ({"resolution": "224"}, "resolution must be .* not '224'"),
        ({"classes": 0}, "classifier: output features must be a whole number from 1 to 2147483647, not 0"),
        ({"channels": 0}, r"input: needs \(height, width, channels\), .* not \(224, 224, 0\)"),
    ],
    ids=str,
)
def test_values_out_of_range(options, message):
    with pytest.raises(GraphError, match=f"^{message}[^\n]*$"):
        zoo.mobilenet_v1(**options)
