import pytest

from smallcnn.cost.profile import profile
from smallcnn.errors import GraphError
from smallcnn.ir import ops
from smallcnn.zoo.squeezenet import squeezenet_1_0, squeezenet_1_1

BOTH = [squeezenet_1_0, squeezenet_1_1]
PARAMETERS = {squeezenet_1_0: 1_248_424, squeezenet_1_1: 1_235_496}
# Table 1, column "#parameter before pruning"
TABLE_1 = {
    "stem": 14_208,
    "fire2": 11_920, "fire3": 12_432, "fire4": 45_344, "fire5": 49_440,
    "fire6": 104_880, "fire7": 111_024, "fire8": 188_992, "fire9": 197_184,
    "classifier": 513_000,
}  # fmt: skip


@pytest.mark.parametrize(
    ("network", "resolution", "mult_adds"),
    [
        (squeezenet_1_0, 224, 818_924_576),
        (squeezenet_1_0, 227, 832_667_936),  # "833 M" in ShuffleNet's Table 6
        (squeezenet_1_1, 224, 349_151_936),
        (squeezenet_1_1, 227, 387_747_520),
    ],
)
def test_totals(network, resolution, mult_adds):
    cost = profile(network(resolution=resolution))
    assert (cost.mult_adds, cost.parameters) == (mult_adds, PARAMETERS[network])


def test_1_0_block_by_block():
    found = dict.fromkeys(TABLE_1, 0)
    for layer in profile(squeezenet_1_0()).layers:
        if layer.parameters:
            found[layer.name.partition(".")[0]] += layer.parameters
    assert found == TABLE_1


@pytest.mark.parametrize("network", BOTH)
def test_planes_of_table_1(network):
    """At 227: 1.0 pools 111 to 55 after the first layer, to 27 after fire4 and to 13 after fire8; 1.1 pools earlier."""
    graph = network(resolution=227)
    sides = [
        graph[name].shape[0] for name in ("stem.act", "fire2.concat", "fire4.concat", "fire5.concat", "fire6.concat")
    ]
    assert sides == {squeezenet_1_0: [111, 55, 55, 27, 27], squeezenet_1_1: [113, 56, 28, 28, 14]}[network]
    assert graph["fire9.concat"].shape == ((13 if network is squeezenet_1_0 else 14),) * 2 + (512,)
    assert graph.features == "fire9.concat"


@pytest.mark.parametrize(
    ("network", "stem"),
    [(squeezenet_1_0, 96), (squeezenet_1_1, 64)],
)
def test_bypasses(network, stem):
    """Simple: around fire3, 5, 7, 9, free. Complex: biased 1x1 convolutions around fire2, 4, 6, 8 as well."""
    simple, complex_ = network(bypass="simple"), network(bypass="complex")
    assert profile(simple).parameters == PARAMETERS[network]
    assert [n.name for n in simple if isinstance(n.op, ops.Add)] == [f"fire{i}.add" for i in (3, 5, 7, 9)]
    extra = sum((fan_in + 1) * out for fan_in, out in [(stem, 128), (128, 256), (256, 384), (384, 512)])
    assert profile(complex_).parameters == PARAMETERS[network] + extra
    assert [n.name for n in complex_ if isinstance(n.op, ops.Add)] == [f"fire{i}.add" for i in range(2, 10)]


def test_complex_bypass_of_1_0():
    assert profile(squeezenet_1_0(bypass="complex")).parameters == 1_589_672


def test_layers_in_the_order_of_torchvision():
    weighted = [name for name in squeezenet_1_1().weights if name.endswith("weight")]
    fires = [f"fire{i}.{part}.conv.weight" for i in range(2, 10) for part in ("squeeze", "expand1x1", "expand3x3")]
    assert weighted == ["stem.conv.weight", *fires, "classifier.conv.weight"]


@pytest.mark.parametrize("network", BOTH)
def test_no_batch_norm_and_relu_to_the_end(network):
    graph = network()
    assert not [n for n in graph if isinstance(n.op, ops.BatchNorm)]
    assert {n.op.bias for n in graph if isinstance(n.op, ops.Conv)} == {True}
    assert [n.op.kind for n in graph.nodes[-4:]] == ["dropout", "conv", "activation", "global_pool"]


@pytest.mark.parametrize(
    ("network", "options", "plane"),
    [
        (squeezenet_1_0, {"resolution": 97}, (5, 5)),  # 97 46 23 11 5: the first layer rounds down, pools round up
        (squeezenet_1_0, {"resolution": (64, 96)}, (3, 5)),
        (squeezenet_1_0, {"resolution": 32, "small_input": True}, (6, 6)),  # 32 26 13 6
        (squeezenet_1_0, {"resolution": 28, "small_input": True, "bypass": "complex"}, (5, 5)),
        (squeezenet_1_1, {"resolution": 97}, (6, 6)),  # 97 48 24 12 6
        (squeezenet_1_1, {"resolution": (64, 96)}, (3, 5)),  # 64 31 15 7 3
        (squeezenet_1_1, {"resolution": 32, "small_input": True}, (7, 7)),  # 32 30 15 7
    ],
    ids=lambda value: getattr(value, "__name__", str(value)),  # every process that runs tests must call them the same
)
def test_last_plane(network, options, plane):
    graph = network(**options)
    assert graph[graph.features].shape == (*plane, 512)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"bypass": "full"}, "bypass must be none or simple or complex, not 'full'"),
        ({"small_input": 1}, "small_input must be true or false, not 1"),
        ({"resolution": 1}, "stem.conv: a 7x7 window does not fit the padded 1x1 input"),
    ],
    ids=str,
)
def test_errors(options, message):
    with pytest.raises(GraphError, match=f"^{message}$"):
        squeezenet_1_0(**options)
