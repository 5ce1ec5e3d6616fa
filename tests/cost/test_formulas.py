from fractions import Fraction

import pytest

from smallcnn import zoo
from smallcnn.cost import formulas
from smallcnn.cost.profile import profile
from smallcnn.ir.builder import Builder


def counted(graph, part=""):
    """Mult-Adds of the layers of one part."""
    return sum(layer.mult_adds for layer in profile(graph).layers if layer.name.startswith(part))


@pytest.mark.parametrize(("kernel", "inputs", "outputs", "side"), [(3, 5, 7, 9), (1, 4, 6, 8), (5, 2, 3, 6)])
def test_one_layer(kernel, inputs, outputs, side):
    g = Builder(input=(side, side, inputs))
    full = g.conv(g.input, outputs, kernel=kernel, name="full")
    deep = g.depthwise(g.input, kernel=kernel, name="separable.depthwise")
    wide = g.conv(deep, outputs, name="separable.pointwise")
    both = g.add(full, wide, name="both")
    graph = g.graph(g.global_pool(both, name="pool"), features=both, name="layers")
    assert formulas.standard(kernel, inputs, outputs, side) == counted(graph, "full")
    assert formulas.depthwise(kernel, inputs, side) == counted(graph, "separable.depthwise")
    assert formulas.pointwise(inputs, outputs, side) == counted(graph, "separable.pointwise")
    assert formulas.separable(kernel, inputs, outputs, side) == counted(graph, "separable")
    share = Fraction(counted(graph, "separable"), counted(graph, "full"))
    assert formulas.separable_share(kernel, outputs) == share


def test_3x3_separable_is_8_to_9_times_cheaper():
    """MobileNet v1, section 3.1."""
    assert all(8 < 1 / formulas.separable_share(3, outputs) < 9 for outputs in (128, 256, 512, 1024))


def test_multipliers():
    """Equations 6 and 7, on block 9 of MobileNet v1: 512 -> 512 channels on 14x14 before scaling."""
    graph = zoo.mobilenet_v1(width=0.75, resolution=128)
    alpha, rho = Fraction(3, 4), Fraction(4, 7)
    assert formulas.separable_scaled(3, 512, 512, 14, alpha, rho) == counted(graph, "block9.")
    graph = zoo.mobilenet_v1(width=0.5)
    assert formulas.separable_scaled(3, 512, 512, 14, Fraction(1, 2)) == counted(graph, "block9.")


@pytest.mark.parametrize(
    ("block", "side", "inputs", "outputs"),
    [("block3.", 56, 24, 24), ("block5.", 28, 32, 32), ("block11.", 14, 64, 96), ("block17.", 7, 160, 320)],
)
def test_bottleneck(block, side, inputs, outputs):
    assert formulas.bottleneck(side, side, inputs, outputs, 6) == counted(zoo.mobilenet_v2(), block)


@pytest.mark.parametrize(("groups", "channels"), [(1, 144), (2, 200), (3, 240), (4, 272), (8, 384)])
def test_shufflenet_unit(groups, channels):
    graph = zoo.parse(f"shufflenet_v1:groups={groups}").build()
    assert formulas.shufflenet_unit(28, 28, channels, channels // 4, groups) == counted(graph, "stage2_2.")
    assert formulas.shufflenet_unit(7, 7, 4 * channels, channels, groups) == counted(graph, "stage4_4.")


@pytest.mark.parametrize("groups", [1, 4])
def test_resnet_and_resnext_units(groups):
    g = Builder(input=(6, 5, 16))
    x = g.conv(g.input, 8, name="reduce")
    x = g.conv(g.conv(x, 8, kernel=3, groups=groups, name="middle"), 16, name="expand")
    graph = g.graph(g.global_pool(x, name="pool"), features=x, name="unit")
    assert formulas.resnext_unit(6, 5, 16, 8, groups) == counted(graph)
    assert formulas.resnet_unit(6, 5, 16, 8) == formulas.resnext_unit(6, 5, 16, 8, 1)


@pytest.mark.parametrize(
    ("block", "side", "inputs", "outputs"), [("block1.", 32, 3, 64), ("block2.", 16, 64, 128), ("block3.", 8, 128, 256)]
)
def test_effnet_block(block, side, inputs, outputs):
    assert formulas.effnet_block(side, side, inputs, outputs // 2, outputs) == counted(zoo.effnet_cifar(), block)
