import pytest

from smallcnn import zoo
from smallcnn.cost.profile import profile
from smallcnn.errors import GraphError
from smallcnn.ir import ops

# Sandler et al. 2018, arXiv 1801.04381, Table 2; Mult-Adds and parameters (batch norm included) of each row
ROWS = {
    "stem": (10_838_016, 928),
    (1, 1): (10_035_200, 896),
    (2, 3): (54_942_720, 13_968),
    (4, 6): (37_443_840, 39_696),
    (7, 10): (38_497_536, 183_872),
    (11, 13): (58_103_808, 303_168),
    (14, 16): (46_560_192, 795_264),
    (17, 17): (23_002_560, 473_920),
    "last": (20_070_400, 412_160),
    "classifier": (1_280_000, 1_281_000),
}

# parameters and the Mult-Adds at 224, 192, 160, 128 and 96 pixels: the grid of the released models
GRID = {
    1.4: (6_108_776, [582_195_824]),
    1.3: (5_386_792, [509_374_560]),
    1.0: (3_504_872, [300_774_272, 221_316_608, 154_083_200, 99_074_048, 56_289_152]),
    0.75: (2_636_424, [209_069_792, 153_941_888, 107_295_200, 69_129_728, 39_445_472]),
    0.5: (1_968_680, [97_131_840, 71_701_760, 50_184_000, 32_578_560, 18_885_440]),
    0.35: (1_677_128, [59_285_808, 43_896_512, 30_874_800, 20_220_672, 11_934_128]),
}
CELLS = [(w, r, m) for w, (_, sums) in GRID.items() for r, m in zip((224, 192, 160, 128, 96), sums, strict=False)]


def test_rows_of_table_2():
    layers = profile(zoo.mobilenet_v2()).layers
    for row, want in ROWS.items():
        groups = {row} if isinstance(row, str) else {f"block{i}" for i in range(row[0], row[1] + 1)}
        of = [layer for layer in layers if layer.name.partition(".")[0] in groups]
        assert (sum(x.mult_adds for x in of), sum(x.parameters for x in of)) == want, row


@pytest.mark.parametrize(("width", "resolution", "want"), CELLS)
def test_released_grid(width, resolution, want):
    cost = profile(zoo.mobilenet_v2(width=width, resolution=resolution))
    assert (cost.mult_adds, cost.parameters) == (want, GRID[width][0])


def test_shares_per_layer_type():
    cost = profile(zoo.mobilenet_v2())
    shares = {total.type: round(100 * total.mult_adds / cost.mult_adds, 2) for total in cost.by_type()}
    assert {name: share for name, share in shares.items() if share} == {
        "conv 1x1": 89.08, "depthwise conv 3x3": 6.89, "conv 3x3": 3.60, "dense": 0.43,
    }  # fmt: skip


def test_shortcuts_join_bottlenecks_of_one_row():
    graph = zoo.mobilenet_v2()
    joined = [node.name for node in graph if isinstance(node.op, ops.Add)]
    assert joined == [f"block{i}.add" for i in (3, 5, 6, 8, 9, 10, 12, 13, 15, 16)]
    assert all(graph[name].shape[2] in (24, 32, 64, 96, 160) for name in joined)


def test_ablations_of_figure_6_cost_the_same():
    usual = profile(zoo.mobilenet_v2())
    for options in ({"bottleneck": "nonlinear"}, {"residual": "none"}, {"residual": "expansions"}):
        cost = profile(zoo.mobilenet_v2(**options))
        assert (cost.mult_adds, cost.parameters) == (usual.mult_adds, usual.parameters), options


def test_ablations_of_figure_6():
    def activated(graph):
        return {node.inputs[0] for node in graph if isinstance(node.op, ops.Activation)}

    projections = {f"block{i}.project.bn" for i in range(1, 18)}
    assert not projections & activated(zoo.mobilenet_v2())
    assert projections <= activated(zoo.mobilenet_v2(bottleneck="nonlinear"))
    assert not any(isinstance(node.op, ops.Add) for node in zoo.mobilenet_v2(residual="none"))
    wide = [node for node in zoo.mobilenet_v2(residual="expansions") if isinstance(node.op, ops.Add)]
    assert {node.shape[2] for node in wide} == {144, 192, 384, 576, 960}


def test_first_expansion_is_one_more_convolution():
    usual, gluon = profile(zoo.mobilenet_v2()), profile(zoo.mobilenet_v2(first_expansion=True))
    assert gluon.parameters - usual.parameters == 32 * 32 + 2 * 32
    assert gluon.mult_adds - usual.mult_adds == 32 * 32 * 112 * 112


@pytest.mark.parametrize(
    ("options", "plane"),
    [({}, (7, 7)), ({"resolution": 97}, (4, 4)), ({"resolution": (96, 160)}, (3, 5)), ({"resolution": 1}, (1, 1)),
     ({"small_input": True, "resolution": 32}, (4, 4)), ({"padding": "symmetric", "resolution": 97}, (4, 4))],
    ids=str,
)  # fmt: skip
def test_last_plane(options, plane):
    graph = zoo.mobilenet_v2(**options)
    assert graph[graph.features].shape == (*plane, 1280)


def test_padding_and_epsilon():
    strided = {"same": ((0, 1), (0, 1)), "symmetric": ((1, 1), (1, 1))}
    for padding, want in strided.items():
        graph = zoo.mobilenet_v2(padding=padding, epsilon=1e-5)
        assert {n.op.padding for n in graph if isinstance(n.op, ops.Conv) and n.op.stride == (2, 2)} == {want}
        assert {n.op.epsilon for n in graph if isinstance(n.op, ops.BatchNorm)} == {1e-5}


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"width": 0}, "width must be above 0 and at most 8, not 0; the paper uses 0.35 to 1.4"),
        ({"width": -1.0}, "width must be above 0"),
        ({"residual": "some"}, "residual must be bottlenecks or expansions or none, not 'some'"),
        ({"epsilon": 0.0}, "stem.bn: epsilon must be a number above 0, not 0.0"),
    ],
    ids=str,
)
def test_values_out_of_range(options, message):
    with pytest.raises(GraphError, match=f"^{message}[^\n]*$"):
        zoo.mobilenet_v2(**options)
