import pytest
import torch

from smallcnn.cost.profile import profile
from smallcnn.errors import GraphError
from smallcnn.ir import ops
from smallcnn.module import to_module
from smallcnn.zoo.nasnet import nasnet_a_mobile


def test_cost():
    """Table 3 of the paper prints 5.3 M parameters and 564 M Mult-Adds for NASNet-A (4 @ 1056)."""
    cost = profile(nasnet_a_mobile())
    assert (cost.parameters, cost.mult_adds) == (5_289_978, 563_638_816)


def test_cells():
    """Two reductions after the stem, then three stacks of four with a reduction between them."""
    graph = nasnet_a_mobile()
    assert graph["stem.bn"].shape == (111, 111, 32)
    cells = [node.shape for node in graph if node.name.startswith("cell") and node.name.count(".") == 1]
    shapes = [graph[f"cell{i}.concat"].shape for i in range(1, 17)]
    assert shapes == [
        (56, 56, 44), (28, 28, 88), *[(28, 28, 264)] * 4,
        (14, 14, 352), *[(14, 14, 528)] * 4,
        (7, 7, 704), *[(7, 7, 1056)] * 4,
    ]  # fmt: skip
    assert set(shapes) <= set(cells)
    assert graph[graph.features].shape == (7, 7, 1056)


def structure(graph, name):
    """Each block of a cell as the set of (operation, kernel, stride, tensor read), h and p being the cell's inputs."""
    ends = {"h.bn": "h", "p.bn": "p"} | {f"b{i}.add": f"b{i}" for i in range(1, 6)}

    def trace(node):
        steps = []
        while (end := ends.get(node.name.removeprefix(f"{name}."))) is None:
            if isinstance(node.op, ops.Conv) and node.op.groups > 1:
                steps.append(f"depthwise {node.op.kernel[0]}/{node.op.stride[0]}")
            elif isinstance(node.op, ops.Pool):
                steps.append(f"{node.op.function}/{node.op.stride[0]}")
            node = graph[node.inputs[0]]
        return " ".join([*steps, end])

    adds = [graph[f"{name}.b{i}.add"] for i in range(1, 6)]
    return [sorted(trace(graph[source]) for source in node.inputs) for node in adds]


def test_normal_cell():
    """Figure 4, left; each separable convolution is applied twice."""
    graph = nasnet_a_mobile()
    assert structure(graph, "cell5") == [
        ["depthwise 3/1 depthwise 3/1 p", "depthwise 5/1 depthwise 5/1 h"],
        ["depthwise 3/1 depthwise 3/1 p", "depthwise 5/1 depthwise 5/1 p"],
        ["average/1 h", "p"],
        ["average/1 p", "average/1 p"],
        ["depthwise 3/1 depthwise 3/1 h", "h"],
    ]
    assert graph["cell5.concat"].inputs == ("cell5.p.bn", *[f"cell5.b{i}.add" for i in range(1, 6)])


def test_reduction_cell():
    """Figure 4, right; the stride is in the first of the two (the last that the trace meets)."""
    graph = nasnet_a_mobile()
    assert structure(graph, "cell7") == [
        ["depthwise 5/1 depthwise 5/2 h", "depthwise 7/1 depthwise 7/2 p"],
        ["depthwise 7/1 depthwise 7/2 p", "max/2 h"],
        ["average/2 h", "depthwise 5/1 depthwise 5/2 p"],
        ["average/1 b1", "b2"],
        ["depthwise 3/1 depthwise 3/1 b1", "max/2 h"],
    ]
    assert graph["cell7.concat"].inputs == tuple(f"cell7.b{i}.add" for i in range(2, 6))


def test_what_each_cell_reads():
    """h is made from the cell before, p from the one before that: the stem itself for the first cell."""
    graph = nasnet_a_mobile(cells=1)
    reads = [(graph[f"cell{i}.h.act"].inputs[0], graph[f"cell{i}.p.act"].inputs[0]) for i in range(2, 8)]
    ends = ["stem.bn", *[f"cell{i}.concat" for i in range(1, 7)]]
    assert reads == list(zip(ends[1:], ends[:-1], strict=True))
    assert graph["cell1.h.act"].inputs == ("stem.bn",)
    assert graph["cell1.b1.right.act1"].inputs == ("stem.bn",)


def test_a_halved_input_takes_even_pixels_and_odd_ones():
    graph = nasnet_a_mobile()
    shifted = {node.name for node in graph if isinstance(node.op, ops.Pad)}
    assert shifted == {f"cell{i}.p.shift" for i in (2, 3, 8, 13)}, "after each of the four reductions"
    assert graph["cell3.p.shift"].op.padding == ((-1, 1), (-1, 1))
    module = torch.nn.Sequential(to_module(graph).get_submodule("cell3.p.shift"))
    x = torch.arange(1.0, 17).reshape(1, 1, 4, 4)
    assert module(x)[0, 0, ::2, ::2].tolist() == [[6, 8], [14, 16]]


def test_averages_leave_out_the_padding_and_epsilon_is_slims():
    graph = nasnet_a_mobile()
    assert not any(node.op.count_padding for node in graph if isinstance(node.op, ops.Pool))
    assert {node.op.epsilon for node in graph if isinstance(node.op, ops.BatchNorm)} == {0.001}


@pytest.mark.parametrize("cells", [1, 6])
@pytest.mark.parametrize("filters", [96, 480])
def test_cells_at_filters(cells, filters):
    graph = nasnet_a_mobile(cells=cells, filters=filters)
    assert graph[graph.features].shape == (7, 7, filters)
    assert len({node.name.split(".")[0] for node in graph if node.name.startswith("cell")}) == 4 + 3 * cells
    assert graph.name == f"nasnet_a_mobile:cells={cells},filters={filters}"


@pytest.mark.parametrize(
    ("options", "plane"),
    [
        ({"resolution": 97}, (3, 3)),  # 97 48 24 12 6 3
        ({"resolution": (64, 96)}, (2, 3)),
        ({"resolution": 19}, (1, 1)),
        ({"resolution": 32, "small_input": True}, (2, 2)),  # 32 30 15 8 4 2
        ({"resolution": 11, "small_input": True}, (1, 1)),
        ({"resolution": 64, "channels": 1, "classes": 1}, (2, 2)),
    ],
    ids=str,
)
def test_last_plane(options, plane):
    graph = nasnet_a_mobile(**options)
    assert graph[graph.features].shape == (*plane, 1056)
    assert graph.output_shape == (options.get("classes", 1000),)


def test_small_input_differs_only_in_the_first_stride():
    usual, small = nasnet_a_mobile(), nasnet_a_mobile(small_input=True)
    assert [node.op.stride for node in (usual["stem.conv"], small["stem.conv"])] == [(2, 2), (1, 1)]
    assert usual.weights == small.weights


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"cells": 0}, "cells must be from 1 to 20, not 0; the paper's mobile network has 4"),
        ({"filters": 0}, "filters must be a multiple of 96, not 0; the paper's mobile network has 1056"),
        ({"filters": 1000}, "filters must be a multiple of 96, not 1000; .*"),
        ({"resolution": 1}, "resolution must be at least 19 for nasnet_a_mobile, not 1x1"),
        ({"resolution": (18, 32)}, "resolution must be at least 19 for nasnet_a_mobile, not 18x32"),
        ({"resolution": 10, "small_input": True}, "resolution must be at least 11 for nasnet_a_mobile, not 10x10"),
    ],
    ids=str,
)
def test_errors(options, message):
    with pytest.raises(GraphError, match=f"^{message}$"):
        nasnet_a_mobile(**options)
