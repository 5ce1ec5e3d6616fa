import pytest

from public_logits import check_in_order, public_definition
from smallcnn.cost.profile import profile
from smallcnn.errors import GraphError
from smallcnn.zoo.shufflenet_v2 import shufflenet_v2

# scale: (parameters, Mult-Adds) of torchvision's definitions, counted by torch
PAPER = {
    0.5: (1_366_792, 40_476_448),
    1.0: (2_278_604, 144_907_992),
    1.5: (3_503_624, 295_759_392),
    2.0: (7_393_996, 583_253_464),
}
# of the authors' definitions (megvii-model/ShuffleNet-Series); Table 8: 41, 146, 299, 591 M
RELEASED = {
    0.5: (1_365_792, 40_476_448),
    1.0: (2_278_760, 145_814_296),
    1.5: (3_506_720, 298_970_656),
    2.0: (7_402_600, 590_783_000),
}


@pytest.mark.parametrize("scale", PAPER)
def test_cost(scale):
    cost = profile(shufflenet_v2(scale=scale))
    assert (cost.parameters, cost.mult_adds) == PAPER[scale]


@pytest.mark.parametrize("scale", RELEASED)
def test_cost_of_the_released_form(scale):
    cost = profile(shufflenet_v2(scale=scale, shuffle="released"))
    assert (cost.parameters, cost.mult_adds) == RELEASED[scale]


@pytest.mark.parametrize("scale", PAPER)
@pytest.mark.parametrize(("origin", "shuffle"), [("torchvision", "paper"), ("megvii", "released")])
def test_agrees_with_the_public_definition(origin, shuffle, scale):
    public = public_definition(f"{origin}-shufflenet_v2_x{scale}".replace(".", "_"))
    check_in_order(shufflenet_v2(scale=scale, shuffle=shuffle, resolution=public["resolution"]), public)


@pytest.mark.parametrize(
    ("options", "plane"),
    [
        ({}, (7, 7)),
        ({"resolution": 97}, (4, 4)),  # 97 49 25 13 7 4
        ({"resolution": (96, 161)}, (3, 6)),
        ({"resolution": 1}, (1, 1)),
        ({"resolution": 32, "small_input": True}, (4, 4)),
        ({"resolution": 29, "small_input": True, "shuffle": "released"}, (4, 4)),
    ],
    ids=str,
)
def test_last_plane(options, plane):
    graph = shufflenet_v2(**options)
    assert graph[graph.features].shape == (*plane, 1024)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"scale": 0.75}, "scale must be 0.5, 1, 1.5 or 2, not 0.75"),
        ({"scale": "1"}, "scale must be a number, not '1'"),
        ({"shuffle": "none"}, "shuffle must be paper or released, not 'none'"),
    ],
    ids=str,
)
def test_values_out_of_range(options, message):
    with pytest.raises(GraphError, match=f"^{message}$"):
        shufflenet_v2(**options)
