"""Laying a file's tensors onto a network: by name, every one, whatever their order; anything else says both sides."""

import random

import numpy as np
import pytest
import torch

from public_logits import public_definition
from public_weights import public_image, public_weight
from smallcnn import zoo
from smallcnn.checkpoints.layouts import LAYOUTS, layouts_of
from smallcnn.checkpoints.match_names import expected, in_order, lay, missing_tail, placed
from smallcnn.errors import FileError
from smallcnn.module import to_module

# the public definition, the network here with the options its weights need
DEFINITIONS = [
    ("megvii-shufflenet_v2_x0_5", "shufflenet_v2:scale=0.5,shuffle=released"),
    ("megvii-shufflenet_v2_x1_0", "shufflenet_v2:scale=1.0,shuffle=released"),
    ("megvii-shufflenet_v2_x1_5", "shufflenet_v2:scale=1.5,shuffle=released"),
    ("megvii-shufflenet_v2_x2_0", "shufflenet_v2:scale=2.0,shuffle=released"),
    ("timm-legacy_xception", "xception:padding=symmetric,epsilon=1e-5"),
    ("timm-mobilenetv2_140", "mobilenet_v2:width=1.4,padding=symmetric,epsilon=1e-5"),
    ("torchvision-alexnet", "alexnet:variant=one_tower"),
    ("torchvision-googlenet", "googlenet:variant=torchvision"),
    ("torchvision-vgg16", "vgg16"),
]


def public_tensors(public):
    return {key: public_weight(key, tuple(shape)) for key, shape in public["state"]}


def layout(origin, model):
    (found,) = (layout for layout in layouts_of(model) if layout.origin == origin)
    return found


def refusal(*args, **kwargs) -> str:
    with pytest.raises(FileError) as caught:
        lay(*args, **kwargs)
    (line,) = str(caught.value).splitlines()
    return line


@pytest.mark.parametrize(("name", "model"), DEFINITIONS, ids=[name for name, _ in DEFINITIONS])
def test_logits_are_those_of_the_public_definition(name, model):
    """The large ones; tests/checkpoints/test_importing.py takes the others all the way through files."""
    public = public_definition(name)
    chosen = zoo.parse(model)
    graph = chosen.build(resolution=public["resolution"])
    weights = lay(layout(name.partition("-")[0], chosen.name), graph, public_tensors(public))
    image = public_image(public["resolution"], public["image_seed"])
    if name.startswith("megvii"):
        image = image[:, ::-1].copy()  # its images are blue, green, red; ours are always red, green, blue
    with torch.no_grad():
        logits = to_module(graph, weights).double().eval()(torch.from_numpy(image).double())[0].numpy()
    want = np.array(public["logits"])
    np.testing.assert_allclose(logits[::10], want, rtol=0, atol=1e-8 * np.abs(want).max())  # stored to 9 digits


# --- every layout --------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("layout", LAYOUTS, ids=lambda layout: f"{layout.origin}-{layout.model}")
def test_every_tensor_has_a_name_of_its_own(layout):
    graph = zoo.Configuration(layout.model, zoo.parse(layout.model).options | layout.implies).build()
    theirs = [name for own in layout.names(graph).values() for name in own.values()]
    assert len(set(theirs)) == len(theirs) == len(graph.weights) - len(layout.zero)
    assert {f"{node}.{key}" for node, own in layout.names(graph).items() for key in own} | set(layout.zero) == set(
        graph.weights
    )


@pytest.mark.parametrize(("origin", "model", "names"), [  # as the publishers' files have them
    ("timm", "mobilenet_v1", {"blocks.0.0.conv_dw.weight", "blocks.4.1.bn2.running_var", "conv_stem.weight",
                              "classifier.bias"}),
    ("keras", "mobilenet_v1", {"conv1/kernel", "conv1_bn/moving_mean", "conv_dw_13/depthwise_kernel",
                               "conv_pw_13_bn/beta", "conv_preds/bias"}),
    ("keras", "mobilenet_v2", {"Conv1/kernel", "bn_Conv1/gamma", "expanded_conv_depthwise/depthwise_kernel",
                               "expanded_conv_project_BN/moving_variance", "block_1_expand/kernel",
                               "block_16_project_BN/beta", "Conv_1_bn/gamma", "Logits/kernel"}),
    ("keras", "mobilenet_v2", {"Conv1/kernel", "mobl0_conv_0_depthwise/depthwise_kernel", "bn0_conv_0_bn_project/gamma",
                               "mobl16_conv_16_expand/kernel", "bn16_conv_16_bn_depthwise/beta", "Conv_1_bn/gamma"}),
    ("gluon", "squeezenet_1_1", {"squeezenet0_conv0_weight", "squeezenet0_conv25_bias"}),
    ("gluon", "mobilenet_v2:first_expansion=true",
     {"mobilenetv20_features_linearbottleneck0_conv0_weight",
      "mobilenetv20_features_linearbottleneck16_batchnorm2_running_var", "mobilenetv20_output_pred_weight"}),
    ("fastestdet", "shufflenet_v2", {"first_conv.0.weight", "stage2.0.branch_proj.0.weight",
                                     "stage4.3.branch_main.6.running_mean"}),
    ("megvii", "shufflenet_v1", {"first_conv.0.weight", "features.0.branch_main_1.0.weight",
                                 "features.15.branch_main_2.1.running_var", "classifier.0.weight"}),
])  # fmt: skip
def test_names_are_the_publishers(origin, model, names):
    chosen = zoo.parse(model)
    found = [one.names(chosen.build()) for one in LAYOUTS if (one.origin, one.model) == (origin, chosen.name)]
    assert any(names <= {name for own in one.values() for name in own.values()} for one in found)


# --- strictness ----------------------------------------------------------------------------------------------------

SQUEEZENET = zoo.squeezenet_1_1(resolution=64)
SQUEEZENET_LAYOUT = layout("torchvision", "squeezenet_1_1")
SHUFFLENET = zoo.shufflenet_v2(scale=0.5, resolution=64)
SHUFFLENET_LAYOUT = layout("torchvision", "shufflenet_v2")


@pytest.fixture(scope="module")
def squeezenet():
    return public_tensors(public_definition("torchvision-squeezenet1_1"))


@pytest.fixture(scope="module")
def shufflenet():
    return public_tensors(public_definition("torchvision-shufflenet_v2_x0_5"))


def test_whatever_the_order(shufflenet):
    """Most of its batch norms have the same shape, so that an order that slipped would fit."""
    shuffled = list(shufflenet.items())
    random.Random(0).shuffle(shuffled)
    right, again = (lay(SHUFFLENET_LAYOUT, SHUFFLENET, dict(tensors)) for tensors in (shufflenet, shuffled))
    assert list(right) == list(again) == list(SHUFFLENET.weights)
    for name, value in right.items():
        np.testing.assert_array_equal(again[name], value, strict=True)


def test_two_names_exchanged_are_two_weights_exchanged(squeezenet):
    one, other = "features.3.squeeze.bias", "features.4.squeeze.bias"  # both of 16 numbers
    found = lay(SQUEEZENET_LAYOUT, SQUEEZENET, squeezenet | {one: squeezenet[other], other: squeezenet[one]})
    np.testing.assert_array_equal(found["fire2.squeeze.conv.bias"], squeezenet[other])
    np.testing.assert_array_equal(found["fire3.squeeze.conv.bias"], squeezenet[one])


def test_any_one_tensor_missing(squeezenet):
    for missing in squeezenet:
        left = {name: value for name, value in squeezenet.items() if name != missing}
        assert f"1 missing from the file ({missing})" in refusal(SQUEEZENET_LAYOUT, SQUEEZENET, left)


@pytest.mark.parametrize("surplus", ["features.13.weight", "classifier.1.weight2", "mean", "features.0.Weight"])
def test_one_tensor_too_many(squeezenet, surplus):
    line = refusal(SQUEEZENET_LAYOUT, SQUEEZENET, squeezenet | {surplus: np.ones(3, np.float32)})
    assert f"1 not in the network ({surplus})" in line


def test_any_one_tensor_transposed_or_cut(squeezenet):
    for name, value in squeezenet.items():
        wrong = [value[:-1], value[..., None], value.reshape(-1, 1)]
        if value.ndim == 4 and value.shape[0] != value.shape[1]:
            wrong.append(value.swapaxes(0, 1))
        for other in wrong:
            line = refusal(SQUEEZENET_LAYOUT, SQUEEZENET, squeezenet | {name: other})
            assert f"1 of a different shape ({name} is {other.shape}, the network's" in line


def test_what_is_wrong_is_said_at_once(squeezenet):
    tensors = squeezenet | {"extra": np.ones(1), "features.0.bias": np.ones(7)}
    del tensors["features.0.weight"]
    line = refusal(SQUEEZENET_LAYOUT, SQUEEZENET, tensors)
    for part in ("1 missing from the file (features.0.weight)", "1 not in the network (extra)",
                 "(features.0.bias is (7,), the network's stem.conv.bias (64,))"):  # fmt: skip
        assert part in line


def test_a_long_list_is_cut(squeezenet):
    line = refusal(SQUEEZENET_LAYOUT, SQUEEZENET, {"features.0.weight": squeezenet["features.0.weight"]})
    assert "51 missing from the file (features.0.bias, features.3.squeeze.weight, features.3.squeeze.bias, ...)" in line


@pytest.mark.parametrize("other", [
    "shufflenet_v2:scale=1", "shufflenet_v2:scale=1.5", "shufflenet_v2:scale=2", "shufflenet_v2:scale=0.5",
])  # fmt: skip
def test_another_width_or_another_number_of_classes(shufflenet, other):
    classes = 999 if other.endswith("=0.5") else 1000
    line = refusal(SHUFFLENET_LAYOUT, zoo.parse(other).build(classes=classes), shufflenet)
    assert "of a different shape" in line
    assert "missing" not in line


def test_auxiliary_heads_of_googlenet_are_left_out():
    tensors = public_tensors(public_definition("torchvision-googlenet"))
    graph, googlenet = zoo.googlenet(variant="torchvision", resolution=72), layout("torchvision", "googlenet")
    extra = {"aux1.conv.conv.weight": np.ones((128, 512, 1, 1)), "aux2.fc2.bias": np.ones(1000)}
    assert list(lay(googlenet, graph, tensors | extra)) == list(graph.weights)
    assert "aux3.fc2.bias" in refusal(googlenet, graph, tensors | {"aux3.fc2.bias": np.ones(1000)})


def test_dense_layers_after_a_map_read_it_channels_last():
    """PyTorch flattens (C, H, W), the graph (H, W, C): a weight for one pixel of one channel lands at its place."""
    graph = zoo.alexnet(variant="one_tower", classes=2)
    tensors = {
        name: np.zeros(shape, np.float32)
        for name, shape in public_definition("torchvision-alexnet")["state"]
        if not name.startswith("classifier.6")
    } | {"classifier.6.weight": np.zeros((2, 4096), np.float32), "classifier.6.bias": np.zeros(2, np.float32)}
    tensors["classifier.1.weight"][7, 200 * 36 + 4 * 6 + 5] = 1  # channel 200, row 4, column 5 of a 6x6 map
    fc6 = lay(layout("torchvision", "alexnet"), graph, tensors)["fc6.dense.weight"]
    assert np.argwhere(fc6).tolist() == [[7, (4 * 6 + 5) * 256 + 200]]


# --- heads that were cut off ---------------------------------------------------------------------------------------


def test_the_missing_tail_is_what_nothing_follows(shufflenet):
    def tail(*beginnings):
        left = {name: value for name, value in shufflenet.items() if not name.startswith(beginnings)}
        return missing_tail(SHUFFLENET_LAYOUT, SHUFFLENET, left)

    assert tail("none") == []
    assert tail("fc") == ["classifier"]
    assert tail("fc.weight") == []
    assert tail("fc", "conv5") == ["last.conv", "last.bn", "classifier"]
    assert tail("fc", "conv5.0") == ["classifier"]  # conv5.1 is still there
    assert tail("fc", "stage2") == ["classifier"]
    assert tail("conv1") == []


def test_without_a_tail_the_rest_is_as_strict(shufflenet):
    left = {name: value for name, value in shufflenet.items() if not name.startswith("fc")}
    assert "fc.weight" in refusal(SHUFFLENET_LAYOUT, SHUFFLENET, left)
    found = lay(SHUFFLENET_LAYOUT, SHUFFLENET, left, without=["classifier"])
    assert found.keys() == SHUFFLENET.weights.keys() - {"classifier.weight", "classifier.bias"}
    del left["conv1.0.weight"]
    assert "conv1.0.weight" in refusal(SHUFFLENET_LAYOUT, SHUFFLENET, left, without=["classifier"])
    line = refusal(SHUFFLENET_LAYOUT, SHUFFLENET, shufflenet, without=["classifier"])
    assert "2 not in the network (fc.weight, fc.bias)" in line


def test_names_are_counted(shufflenet, squeezenet):
    assert (
        placed(expected(SHUFFLENET_LAYOUT, SHUFFLENET), shufflenet).count == len(shufflenet) == len(SHUFFLENET.weights)
    )
    assert placed(expected(SHUFFLENET_LAYOUT, SHUFFLENET), squeezenet).count == 0
    assert placed(expected(layout("megvii", "shufflenet_v2"), SHUFFLENET), shufflenet).count == 0


@pytest.mark.parametrize("prefix", ["model.", "net.", "backbone.", "encoder.", "a.b.c.", "model.0.", "conv1.", "fc."])
def test_names_below_a_prefix(shufflenet, prefix):
    below = {f"{prefix}{name}": value for name, value in shufflenet.items()}
    others = {"criterion.weight": np.ones(1000), "mean": np.ones(3), f"{prefix[:-1]}x.fc.weight": np.ones(2)}
    place = placed(expected(SHUFFLENET_LAYOUT, SHUFFLENET), others | below)
    assert (place.count, place.prefix, place.rivals) == (len(shufflenet), prefix, ())
    inside, left = place.of(others | below)
    assert (list(inside), left) == (list(shufflenet), list(others))


@pytest.mark.parametrize(("first", "second", "taken"), [
    ("model.", "ema_model.", "ema_model."), ("student.", "teacher.", "student."), ("teacher.", "student.", "student."),
    ("encoder_q.", "encoder_k.", "encoder_q."), ("model_ema.", "model.", "model_ema."), ("net.", "target_net.", "net."),
    ("teacher_model.", "model.", "model."),
])  # fmt: skip
def test_of_two_networks_the_averaged_then_the_student_then_the_first(shufflenet, first, second, taken):
    both = {f"{prefix}{name}": value for prefix in (first, second) for name, value in shufflenet.items()}
    place = placed(expected(SHUFFLENET_LAYOUT, SHUFFLENET), both)
    assert (place.prefix, set(place.rivals)) == (taken, {first, second} - {taken})


def test_without_a_prefix_a_loss_and_a_teacher_are_left_out_and_nothing_else(shufflenet):
    others = {"criterion.weight": np.ones(1000), "teacher.fc.bias": np.ones(10), "loss_fn.weight": np.ones(2)}
    inside, left = placed(expected(SHUFFLENET_LAYOUT, SHUFFLENET), shufflenet | others).of(
        shufflenet | others | {"x": np.ones(1)}
    )
    assert left == list(others)
    assert inside.keys() - shufflenet.keys() == {"x"}


# --- in the file's order -------------------------------------------------------------------------------------------


def test_in_order_names_do_not_matter(shufflenet):
    renamed = {f"{i}": value for i, value in enumerate(shufflenet.values())}
    named, ordered = lay(SHUFFLENET_LAYOUT, SHUFFLENET, shufflenet), in_order(SHUFFLENET, renamed)
    assert list(ordered) == list(named)
    for name, value in named.items():
        np.testing.assert_array_equal(ordered[name], value, strict=True)


def test_in_order_says_where_it_stops_fitting(squeezenet):
    names = list(squeezenet)
    names[2:4], names[4:6] = names[4:6], names[2:4]  # expand1x1 before squeeze
    with pytest.raises(FileError) as caught:
        in_order(SQUEEZENET, {name: squeezenet[name] for name in names})
    assert "tensor 3 is features.3.expand1x1.weight (64, 16, 1, 1); fire2.squeeze.conv.weight needs" in str(
        caught.value
    )


def test_in_order_counts(squeezenet):
    squeezenet = dict(squeezenet)
    squeezenet.popitem()
    with pytest.raises(FileError, match="51 tensors in the file, 52 in squeezenet_1_1"):
        in_order(SQUEEZENET, squeezenet)
