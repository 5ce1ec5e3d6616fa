import subprocess
import sys

import pytest
import torch
from torch.utils.flop_counter import FlopCounterMode

from networks import every_number, every_op, tiny
from smallcnn import zoo
from smallcnn.cost import memory
from smallcnn.cost.memory import peak_bytes, peak_elements
from smallcnn.cost.profile import mult_adds, profile
from smallcnn.ir.builder import Builder
from smallcnn.module import to_module

# --- Mult-Adds and parameters ---

COUNTED = {
    "every_op": every_op(),
    "separable": zoo.mobilenet_v1(width=0.25, resolution=(96, 65), classes=7),
    "conv": zoo.mobilenet_v1(width=0.25, variant="conv", resolution=33, channels=1),
    "shallow, small": zoo.mobilenet_v1(width=0.5, variant="shallow", small_input=True, resolution=32),
}


@pytest.mark.parametrize("graph", COUNTED.values(), ids=COUNTED)
def test_counts_agree_with_torch(graph):
    module = to_module(graph).eval()
    height, width, channels = graph.input_shape
    with FlopCounterMode(display=False) as counter, torch.no_grad():
        module(torch.zeros(1, channels, height, width))
    cost = profile(graph)
    assert 2 * cost.mult_adds == counter.get_total_flops()
    assert cost.parameters == sum(parameter.numel() for parameter in module.parameters())


def test_mult_adds_of_a_node_by_hand():
    graph = every_op()
    by_hand = {
        "stem.conv": 5 * 4 * 8 * (3 * 3 * 3),
        "few.depthwise": 5 * 4 * 4 * (1 * 3 * 1),
        "many.conv": 5 * 4 * 4 * (3 * 1 * 3),  # 6 channels in 2 groups
        "se.reduce": 8 * 4,
        "se.expand": 4 * 8,
        "last.conv": 4 * 4 * 6 * (3 * 3 * 8),
        "hidden": 4 * 4 * 6 * 7,
        "classifier": 7 * 5,
    }
    assert {node.name: count for node in graph if (count := mult_adds(graph, node))} == by_hand
    assert profile(graph).mult_adds == sum(by_hand.values())


def test_layers_and_types():
    cost = profile(every_op())
    types = {layer.name: layer.type for layer in cost.layers}
    assert types["input"] == "input"
    assert types["stem.conv"] == "conv 3x3"
    assert types["few.depthwise"] == "depthwise conv 1x3"
    assert types["many.conv"] == "grouped conv 3x1"
    assert types["pool.max"] == "max pool 3x2"
    assert types["pool.mean"] == "average pool 2x3"
    assert types["many.act"] == "hard swish"
    assert types["bn"] == "batch norm"
    stem = cost.layers[1]
    assert (stem.input_shapes, stem.output_shape, stem.parameters) == (((9, 8, 3),), (5, 4, 8), 3 * 3 * 3 * 8)
    assert {layer.name: layer.parameters for layer in cost.layers}["bn"] == 2 * 8, "not the running statistics"


def test_types_add_up_and_the_costliest_comes_first():
    cost = profile(zoo.mobilenet_v1())
    totals = cost.by_type()
    assert sum(total.mult_adds for total in totals) == cost.mult_adds
    assert sum(total.parameters for total in totals) == cost.parameters
    assert sum(total.layers for total in totals) == len(cost.layers)
    order = [total.mult_adds for total in totals]
    assert order == sorted(order, reverse=True)
    assert (totals[0].type, totals[0].layers) == ("conv 1x1", 13)


# --- activation memory: each peak is worked out by hand; the input is 4 x 4 x 2 = 32 elements ---


def chain(g):  # 32, 48, 80: the second convolution holds 48 + 80
    return g.conv(g.conv(g.input, 3), 5), 128


def in_place(g):  # batch norm and relu6 write over the 48 of the convolution
    return g.conv_bn(g.input, 3, name="a"), 32 + 48


def residual(g):  # a 32 lives on while b 96 and c 32 are made: 160, then a + c + sum = 96
    a = g.conv(g.input, 2)
    return g.add(a, g.conv(g.conv(a, 6), 2)), 160


def two_branches(g):  # x 32 + p 64 + q 96 = 192; then p + q + both 160 = 320
    x = g.conv(g.input, 2)
    return g.concat(g.conv(x, 4), g.conv(x, 6)), 320


def shared_activation(g):  # a is read again by the sum, so the relu needs its own 32: a + relu + sum
    a = g.conv(g.input, 2)
    return g.add(a, g.activation(a, "relu")), 96


def last_reader(g):  # once d 128 is made the relu is a's only reader and works in place; d + relu 160 + mean 8
    a = g.conv(g.input, 10)
    d = g.conv(a, 8)
    relu = g.activation(a, "relu")
    return g.concat(g.global_pool(d), g.global_pool(relu)), 128 + 160 + 8


def read_twice(g):  # a counts once though one node reads it twice, and stays for the next: a + twice + thrice
    a = g.conv(g.input, 2)
    return g.add(g.add(a, a), a), 96


def image_kept(g):  # the image itself is needed at the end: 32 + a 16 + both 48
    return g.concat(g.conv(g.input, 1), g.input), 96


def vector(g):  # flatten and dropout change nothing in memory: 32 + 3
    return g.dense(g.dropout(g.flatten(g.input), 0.5), 3), 35


def nothing_but_relu(g):
    return g.activation(g.input, "relu"), 32


@pytest.mark.parametrize(
    "case",
    [
        chain, in_place, residual, two_branches, shared_activation, last_reader, read_twice, image_kept, vector,
        nothing_but_relu,
    ],
    ids=lambda case: case.__name__,
)  # fmt: skip
def test_peak_activation_by_hand(case):
    g = Builder(input=(4, 4, 2))
    end, want = case(g)
    assert peak_elements(g.graph(end, features=end, name=case.__name__)) == want


def test_peak_activation_of_mobilenet_v1():
    """The first pointwise convolution: 32 channels in, 64 out, both 112 x 112."""
    assert profile(zoo.mobilenet_v1()).peak_activation_elements == 112 * 112 * (32 + 64)


# --- weight bytes ---


def test_weight_bytes_are_counted_after_folding():
    """tiny: two folded convolutions of 4 channels, each with a bias, and the classifier."""
    assert profile(tiny()).weight_bytes == 4 * ((4 * 3 * 9 + 4) + (4 * 9 + 4) + (4 * 3 + 3))


def test_weight_bytes_keep_a_batch_norm_that_cannot_be_folded():
    g = Builder(input=(4, 4, 2))
    x = g.batch_norm(g.concat(g.input, g.conv(g.input, 3)))
    cost = profile(g.graph(x, features=x, name="net"))
    assert cost.weight_bytes == 4 * ((2 * 3 + 3) + 4 * 5)  # scale, shift and both statistics of 5 channels


def test_weight_bytes_of_mobilenet_v1():
    """4,231,976 parameters; a bias takes the place of a scale and a shift in each of the 10,944 channels."""
    assert profile(zoo.mobilenet_v1()).weight_bytes == 4 * (4_231_976 - 10_944)


# --- lightness ---


def test_counting_imports_no_framework():
    heavy = ["torch", "onnx", "onnxruntime", "PIL", "safetensors"]
    code = f"import sys, smallcnn.cost.profile, smallcnn.zoo; print([name for name in {heavy} if name in sys.modules])"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True, timeout=100)
    assert done.stdout.strip() == "[]"


# --- number types ---


def test_bytes_of_each_number_type_by_hand():
    """The added branch: int8 weights of a 3x3 convolution from 8 to 6 channels, uint8 ones of a dense layer."""
    plain, mixed = memory.weight_bytes(every_op()), memory.weight_bytes(every_number())
    conv, dense = 6 * 8 * 3 * 3, 3 * 5 * 6 * 5
    assert mixed == {"float32": plain["float32"] + 4 * (6 + 5), "int8": conv, "uint8": dense}
    cost = profile(every_number())
    assert cost.weight_bytes == sum(mixed.values())
    assert cost.mult_adds == profile(every_op()).mult_adds + 3 * 5 * conv + dense


def test_a_peak_in_bytes_counts_each_tensor_in_its_type():
    """4 x 4 x 2 elements: the image and its bytes; bytes and pooled bytes; pooled bytes and real numbers."""
    g = Builder(input=(4, 4, 2))
    x = g.max_pool(g.quantize(g.input, "uint8", scale=0.5, zero=1), kernel=3, stride=1)
    graph = g.graph(g.dequantize(x), features=x, name="bytes")
    assert (peak_elements(graph), peak_bytes(graph)) == (64, 4 * 32 + 32)


def test_a_change_of_the_number_type_is_a_row():
    types = [layer.type for layer in profile(every_number()).layers]
    assert (types.count("quantize"), types.count("dequantize")) == (2, 2)
