"""From a public file to a model file: the origin is recognised, the logits are the publisher's, the rest is refused."""

import hashlib
from collections import OrderedDict

import numpy as np
import pytest
import safetensors.numpy
import torch

from public_logits import public_definition
from public_weights import public_image, public_weight
from shared_files import shared
from smallcnn import zoo
from smallcnn.checkpoints.importing import import_checkpoint
from smallcnn.errors import FileError, GraphError
from smallcnn.image import imagenet
from smallcnn.image.overrides import Overrides
from smallcnn.ir.graph import Graph, Output
from smallcnn.model.store import load, save
from smallcnn.module import to_module
from smallcnn.reference.floating import answer as run
from smallcnn.reference.initial import initial_weights

KERAS_V1 = "weights/mobilenet_v1_0.25_224_keras_bn_float32.npz"

# the public definition, the network here, its origin, whether the names tell it
DEFINITIONS = [
    ("megvii-shufflenet_v2_x0_5", "shufflenet_v2:scale=0.5", "megvii", True),
    ("timm-efficientnet_lite0", "efficientnet_lite0", "timm", False),
    ("timm-mobilenetv1_100", "mobilenet_v1", "timm", True),
    ("timm-mobilenetv2_100", "mobilenet_v2", "timm", True),
    ("timm-mobilenetv3_large_100", "mobilenet_v3_large", "timm", False),
    ("timm-mobilenetv3_small_100", "mobilenet_v3_small", "timm", False),
    ("timm-mobilenetv4_conv_small", "mobilenet_v4_conv_small", "timm", True),
    ("timm-tf_efficientnet_lite0", "efficientnet_lite0", "timm-tf", False),
    ("timm-tf_mobilenetv3_large_100", "mobilenet_v3_large", "timm-tf", False),
    ("torchvision-mobilenet_v2", "mobilenet_v2", "torchvision", True),
    ("torchvision-mobilenet_v2_x0_5", "mobilenet_v2:width=0.5", "torchvision", True),
    ("torchvision-mobilenet_v2_x1_4", "mobilenet_v2:width=1.4", "torchvision", True),
    ("torchvision-mobilenet_v3_large", "mobilenet_v3_large", "torchvision", True),
    ("torchvision-mobilenet_v3_small", "mobilenet_v3_small", "torchvision", True),
    ("torchvision-shufflenet_v2_x0_5", "shufflenet_v2:scale=0.5", "torchvision", True),
    ("torchvision-shufflenet_v2_x1_0", "shufflenet_v2", "torchvision", True),
    ("torchvision-shufflenet_v2_x1_5", "shufflenet_v2:scale=1.5", "torchvision", True),
    ("torchvision-shufflenet_v2_x2_0", "shufflenet_v2:scale=2", "torchvision", True),
    ("torchvision-squeezenet1_0", "squeezenet_1_0", "torchvision", True),
    ("torchvision-squeezenet1_1", "squeezenet_1_1", "torchvision", True),
]


def public_tensors(name):
    return {key: public_weight(key, tuple(shape)) for key, shape in public_definition(name)["state"]}


def write_pth(path, tensors, prefix=""):
    """As training code saves it: with the counters, wrapped if there is a prefix."""
    state = OrderedDict((prefix + key, torch.from_numpy(np.array(value))) for key, value in tensors.items())
    for key in [key for key in state if key.endswith("running_var")]:
        state[key.replace("running_var", "num_batches_tracked")] = torch.tensor(1000)
    torch.save({"state_dict": state, "epoch": 90} if prefix else state, path)
    return path


def refusal(files, model, **how) -> str:
    """The one line that importing ends in."""
    files = files if isinstance(files, list) else [files]
    with pytest.raises(FileError) as caught:
        import_checkpoint(files, model, **how)
    (line,) = str(caught.value).splitlines()
    return line


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    return tmp_path_factory.mktemp("checkpoints")


@pytest.fixture(scope="module")
def squeezenet(folder):
    return write_pth(folder / "squeezenet.pth", public_tensors("torchvision-squeezenet1_1"))


@pytest.fixture(scope="module")
def shufflenet(folder):
    return write_pth(folder / "shufflenet.pth", public_tensors("torchvision-shufflenet_v2_x0_5"))


# --- public definitions --------------------------------------------------------------------------------------------


def check_logits(made, public, image):
    with torch.no_grad():
        logits = to_module(made.graph, made.weights).double().eval()(torch.from_numpy(image).double())[0].numpy()
    want = np.array(public["logits"])
    np.testing.assert_allclose(logits[::10], want, rtol=0, atol=1e-8 * np.abs(want).max())  # stored to 9 digits


@pytest.mark.parametrize(("name", "model", "origin", "told"), DEFINITIONS, ids=[row[0] for row in DEFINITIONS])
def test_a_public_file_gives_the_public_logits(name, model, origin, told, tmp_path):
    public, tensors = public_definition(name), public_tensors(name)
    asked = None if told else origin
    overrides = Overrides(resolution=public["resolution"])
    image = public_image(public["resolution"], public["image_seed"])
    if origin == "megvii":
        image = image[:, ::-1].copy()  # its images are blue, green, red; ours are always red, green, blue
    files = [
        write_pth(tmp_path / "plain.pth", tensors),
        write_pth(tmp_path / "wrapped.pth", tensors, prefix="module."),
        tmp_path / "hub.safetensors",
    ]
    safetensors.numpy.save_file(tensors, files[2])
    made = [import_checkpoint([file], model, origin=asked, overrides=overrides) for file in files]
    check_logits(made[0], public, image)
    for file, other in zip(files, made, strict=True):
        assert other.graph == made[0].graph
        for key, value in made[0].weights.items():
            np.testing.assert_array_equal(other.weights[key], value)
        assert other.facts["imported"] == {
            "model": made[0].graph.name,
            "origin": origin,
            "files": [{"name": file.name, "sha256": hashlib.sha256(file.read_bytes()).hexdigest()}],
            "fresh": [],
            "notes": [],
        }


@pytest.mark.parametrize("name", ["timm-tf_mobilenetv3_large_100", "timm-efficientnet_lite0"])
def test_where_names_do_not_tell_the_origin_is_asked_for(name, tmp_path):
    model = "mobilenet_v3_large" if "mobilenetv3" in name else "efficientnet_lite0"
    path = write_pth(tmp_path / "w.pth", public_tensors(name))
    line = refusal(path, model)
    assert line.startswith(f"{path}: its names fit several origins")
    assert line.endswith("--origin: timm or timm-tf")
    usual, tensorflow = (import_checkpoint([path], model, origin=origin) for origin in ("timm", "timm-tf"))
    assert usual.graph.name != tensorflow.graph.name
    assert (usual.preprocessing.mean, tensorflow.preprocessing.mean) == ((0.485, 0.456, 0.406), (0.5, 0.5, 0.5))


def test_what_comes_with_it(squeezenet, tmp_path):
    made = import_checkpoint([str(squeezenet)], "squeezenet_1_1")
    assert made.labels == imagenet.labels()
    usual = made.preprocessing
    assert (usual.size, usual.crop, usual.interpolation) == ((224, 224), 0.875, "bilinear")
    assert (usual.mean, usual.std) == ((0.485, 0.456, 0.406), (0.229, 0.224, 0.225))  # torchvision's references
    save(made, tmp_path / "m.safetensors")
    assert load(tmp_path / "m.safetensors").facts == made.facts


def test_megvii_pictures_are_bytes_as_they_are(tmp_path):
    path = write_pth(tmp_path / "w.pth", public_tensors("megvii-shufflenet_v2_x0_5"))
    made = import_checkpoint([path], "shufflenet_v2:scale=0.5")
    scale, shift = made.preprocessing.scale_and_shift()
    np.testing.assert_allclose(scale, 1, rtol=1e-6)
    np.testing.assert_array_equal(shift, 0)


def test_preparation_and_labels_that_are_given_win(squeezenet):
    names = [f"thing {i}" for i in range(1000)]
    overrides = Overrides(resolution=128, mean=(0.1, 0.2, 0.3), std=(1.0, 2.0, 3.0), crop=1.0, interpolation="lanczos")
    made = import_checkpoint([squeezenet], "squeezenet_1_1", labels=names, overrides=overrides)
    found = made.preprocessing
    assert (found.size, found.mean, found.std) == ((128, 128), (0.1, 0.2, 0.3), (1.0, 2.0, 3.0))
    assert (found.crop, found.interpolation) == (1.0, "lanczos")
    assert made.graph.input_shape == (128, 128, 3)
    assert made.labels == tuple(names)
    assert "3 labels for 1000 classes" in refusal(squeezenet, "squeezenet_1_1", labels=["a", "b", "c"])
    for wrong in (Overrides(crop=0.0), Overrides(mean=(0.1, 0.2)), Overrides(std=(0.0,) * 3)):
        assert "preprocessing: " in refusal(squeezenet, "squeezenet_1_1", overrides=wrong)


def with_classes_of_file(classes, path):
    tensors = public_tensors("torchvision-shufflenet_v2_x0_5")
    tensors |= {"fc.weight": public_weight("w", (classes, 1024)), "fc.bias": public_weight("b", (classes,))}
    return write_pth(path, tensors)


def test_the_number_of_classes_is_the_files(tmp_path):
    made = import_checkpoint([with_classes_of_file(7, tmp_path / "w.pth")], "shufflenet_v2:scale=0.5")
    assert made.graph.output_shape == (7,)
    assert made.labels == tuple(f"class {i}" for i in range(7))


def test_background_is_dropped_unless_it_is_kept(tmp_path):
    path = with_classes_of_file(1001, tmp_path / "w.pth")
    kept = import_checkpoint([path], "shufflenet_v2:scale=0.5", keep_background=True)
    made = import_checkpoint([path], "shufflenet_v2:scale=0.5")
    assert kept.labels == (imagenet.BACKGROUND, *imagenet.labels())
    assert made.labels == imagenet.labels()
    np.testing.assert_array_equal(made.weights["classifier.weight"], public_weight("w", (1001, 1024))[1:])
    np.testing.assert_array_equal(made.weights["classifier.bias"], public_weight("b", (1001,))[1:])


# --- what is refused -----------------------------------------------------------------------------------------------


def test_the_wrong_network(squeezenet, shufflenet):
    assert "does not fit squeezenet_1_0 as torchvision names it" in refusal(squeezenet, "squeezenet_1_0")
    assert "of a different shape" in refusal(shufflenet, "shufflenet_v2:scale=1")
    line = refusal(shufflenet, "mobilenet_v1")
    assert "conv1.0.weight" in line
    assert "are not those of timm or keras for mobilenet_v1" in line
    assert line.endswith("; the file fits shufflenet_v2:scale=0.5")


def test_a_network_of_which_no_public_weights_are_known(squeezenet):
    line = refusal(squeezenet, "effnet")
    assert "match no known layout of effnet; --origin order" in line
    assert line.endswith("; the file fits squeezenet_1_1")


def test_a_misspelt_network_or_option(squeezenet):
    with pytest.raises(GraphError, match="closest: squeezenet_1_1"):
        import_checkpoint([squeezenet], "squeezenet_11")
    with pytest.raises(GraphError, match="no option 'widht'"):
        import_checkpoint([squeezenet], "mobilenet_v2:widht=1")


def test_an_unknown_origin_names_those_that_are_known(squeezenet):
    line = refusal(squeezenet, "squeezenet_1_1", origin="torchvison")
    assert line == f"{squeezenet}: no origin 'torchvison' of squeezenet_1_1; closest: torchvision"
    assert "known: gluon, order, smallcnn, torchvision" in refusal(squeezenet, "squeezenet_1_1", origin="x")


def test_the_origin_that_is_asked_for_must_be_the_files(squeezenet):
    assert "its names (features.0.weight" in refusal(squeezenet, "squeezenet_1_1", origin="gluon")


@pytest.mark.parametrize(
    ("definition", "model", "needs"),
    [
        ("timm-mobilenetv1_100", "mobilenet_v1:epsilon=0.01", "timm need epsilon=1e-05, not epsilon=0.01"),
        (
            "torchvision-shufflenet_v2_x0_5",
            "shufflenet_v2:scale=0.5,shuffle=released",
            "torchvision need shuffle=paper",
        ),
    ],
)
def test_an_option_against_what_the_weights_need(definition, model, needs, tmp_path):
    assert needs in refusal(write_pth(tmp_path / "w.pth", public_tensors(definition)), model)


def test_keras_weights_with_pytorchs_padding_are_refused():
    path = shared(KERAS_V1)
    line = refusal(path, "mobilenet_v1:width=0.25,padding=symmetric")
    assert "weights of keras need padding=same, not padding=symmetric" in line


def test_damaged_files_name_themselves(squeezenet, tmp_path):
    whole = squeezenet.read_bytes()
    for suffix in (".pth", ".safetensors", ".npz", ".h5", ".tflite"):
        if suffix in (".h5", ".tflite"):
            pytest.importorskip({".h5": "h5py", ".tflite": "tflite"}[suffix])
        for name, content in {"empty": b"", "cut": whole[:100_000]}.items():
            (tmp_path / f"{name}{suffix}").write_bytes(content)
            assert refusal(tmp_path / f"{name}{suffix}", "squeezenet_1_1").startswith(f"{tmp_path / name}{suffix}: ")


def test_several_files_are_for_layers_only(squeezenet):
    assert "only a .tflite network may be split over several files; give one file" in refusal(
        [squeezenet, squeezenet], "squeezenet_1_1"
    )
    assert "give one file" in refusal([], "squeezenet_1_1")


# --- taken in order ------------------------------------------------------------------------------------------------


def test_in_order_any_names_do(shufflenet, tmp_path):
    tensors = public_tensors("torchvision-shufflenet_v2_x0_5")
    renamed = {f"layer{i:03}": value for i, value in enumerate(tensors.values())}
    np.savez(tmp_path / "w.npz", **renamed)
    by_name = import_checkpoint([shufflenet], "shufflenet_v2:scale=0.5,shuffle=paper")
    for path in (write_pth(tmp_path / "w.pth", renamed), tmp_path / "w.npz"):
        made = import_checkpoint([path], "shufflenet_v2:scale=0.5,shuffle=paper", origin="order")
        assert made.facts["imported"]["origin"] == "order"
        assert made.weights.keys() == by_name.weights.keys()
        for name, value in by_name.weights.items():
            np.testing.assert_array_equal(made.weights[name], value)


def test_in_order_two_layers_exchanged(tmp_path):
    names = list(tensors := public_tensors("torchvision-squeezenet1_1"))
    at = names.index("features.3.expand1x1.weight")
    names[at : at + 4] = [*names[at + 2 : at + 4], *names[at : at + 2]]  # 3x3 before 1x1, of other shapes
    path = write_pth(tmp_path / "w.pth", {name: tensors[name] for name in names})
    line = refusal(path, "squeezenet_1_1", origin="order")
    assert "tensor 5 is features.3.expand3x3.weight (64, 16, 3, 3); fire2.expand1x1.conv.weight needs" in line
    assert import_checkpoint([path], "squeezenet_1_1").facts["imported"]["origin"] == "torchvision"


def test_in_order_needs_a_file_that_keeps_one(tmp_path):
    safetensors.numpy.save_file(public_tensors("torchvision-squeezenet1_1"), tmp_path / "w.safetensors")
    line = refusal(tmp_path / "w.safetensors", "squeezenet_1_1", origin="order")
    assert "a .safetensors file sorts its tensors by name, so their order is lost" in line


def test_in_order_keeps_the_conventions_of_pytorch(tmp_path):
    """Names of nobody: padding, epsilon, mean and standard deviation are PyTorch's, and the note says so."""
    tensors = public_tensors("torchvision-mobilenet_v2_x0_5")
    by_name = import_checkpoint([write_pth(tmp_path / "a.pth", tensors)], "mobilenet_v2:width=0.5")
    for prefix in ("", "model."):
        renamed = {f"{prefix}layer{i:03}": value for i, value in enumerate(tensors.values())}
        path = write_pth(tmp_path / "b.pth", renamed)
        made = import_checkpoint([path], "mobilenet_v2:width=0.5", origin="order")
        assert made.graph == by_name.graph
        assert made.preprocessing == by_name.preprocessing
        (note,) = made.facts["imported"]["notes"]
        assert "padding=symmetric, epsilon=1e-05, mean 0.485,0.456,0.406, standard deviation 0.229,0.224,0.225" in note
    given = import_checkpoint(
        [path], "mobilenet_v2:width=0.5,padding=same", origin="order", overrides=Overrides(mean=(0.5,))
    )
    assert "padding=same, epsilon=1e-05, mean 0.5,0.5,0.5" in given.facts["imported"]["notes"][0]
    assert given.graph.name == "mobilenet_v2:width=0.5,epsilon=1e-05"
    named = import_checkpoint([tmp_path / "a.pth"], "mobilenet_v2:width=0.5", origin="order")
    assert (named.graph, named.preprocessing) == (by_name.graph, by_name.preprocessing)


# --- prefixes, and what else training scripts do to names and shapes -------------------------------------------------

PREFIXES = ["model.", "net.", "backbone.", "encoder.", "module.", "module.model.", "_orig_mod.", "module._orig_mod.",
            "model._orig_mod.", "a.0.b."]  # fmt: skip


@pytest.mark.parametrize("prefix", PREFIXES)
def test_any_prefix_leaves_nothing_to_be_changed(prefix, tmp_path):
    tensors = public_tensors("torchvision-mobilenet_v2_x0_5")
    plain = import_checkpoint([write_pth(tmp_path / "plain.pth", tensors)], "mobilenet_v2:width=0.5")
    below = {f"{prefix}{name}": value for name, value in tensors.items()}
    others = {"criterion.weight": np.ones(1000, np.float32), "teacher.head.weight": np.ones((2, 2), np.float32)}
    for file, extra in (("w.ckpt", {}), ("w.safetensors", {}), ("beside", others)):
        path = tmp_path / file
        if file == "w.safetensors":
            safetensors.numpy.save_file(below, path)
        else:
            torch.save(
                {"state_dict": {name: torch.from_numpy(np.array(v)) for name, v in (extra | below).items()}}, path
            )
        made = import_checkpoint([path], "mobilenet_v2:width=0.5")
        assert (made.graph, made.preprocessing) == (plain.graph, plain.preprocessing)
        for name, value in plain.weights.items():
            np.testing.assert_array_equal(made.weights[name], value)
        notes = [f"ignored, not part of the network: {', '.join(extra)}"] if extra else []
        assert made.facts["imported"]["notes"] == notes


def test_of_several_networks_in_a_file_the_note_says_which(tmp_path):
    tensors = public_tensors("torchvision-shufflenet_v2_x0_5")
    both = {f"teacher.{name}": value + 1 for name, value in tensors.items()}
    path = write_pth(tmp_path / "w.pth", both | {f"student.{name}": value for name, value in tensors.items()})
    made = import_checkpoint([path], "shufflenet_v2:scale=0.5")
    np.testing.assert_array_equal(made.weights["classifier.bias"], tensors["fc.bias"])
    assert made.facts["imported"]["notes"][0] == "as many names fit below 'teacher.'; used those below 'student.'"


@pytest.mark.parametrize("channels", [1, 3])
@pytest.mark.parametrize(
    "definition", ["torchvision-mobilenet_v2_x0_5", "timm-mobilenetv1_100", "megvii-shufflenet_v2_x0_5"]
)
def test_grey_networks(definition, channels, tmp_path):
    tensors = public_tensors(definition)
    first = next(iter(tensors))
    tensors[first] = tensors[first][:, :channels]
    made = import_checkpoint([write_pth(tmp_path / "w.pth", tensors)])
    assert made.graph.input_shape[2] == made.preprocessing.channels == channels
    if channels == 1:
        np.testing.assert_array_equal(made.weights["stem.conv.weight"], tensors[first])
        colours = {"torchvision": 0.449, "timm": 0.5, "megvii": 0.0}  # of ImageNet: (0.485 + 0.456 + 0.406) / 3
        assert made.preprocessing.mean == (colours[definition.partition("-")[0]],)
        assert "assumed" in made.facts["imported"]["notes"][-1]


def test_four_channels_are_refused(tmp_path):
    tensors = public_tensors("torchvision-mobilenet_v2_x0_5")
    first = next(iter(tensors))
    tensors[first] = np.ones((tensors[first].shape[0], 4, 3, 3), np.float32)
    line = refusal(write_pth(tmp_path / "w.pth", tensors), "mobilenet_v2:width=0.5")
    assert "its first layer reads 4 channels; images here are grey (1) or RGB (3)" in line


@pytest.mark.parametrize(
    "model", ["squeezenet_1_1", "mobilenet_v2:width=0.35", "effnet", "squeezenet_1_1:bypass=complex"]
)
def test_the_networks_own_names(model, tmp_path):
    graph = zoo.parse(model).build(classes=4)
    weights = initial_weights(graph)
    state = {f"net.{name}": torch.from_numpy(value) for name, value in weights.items()}
    torch.save({"state_dict": state}, tmp_path / "w.ckpt")
    for made in (import_checkpoint([tmp_path / "w.ckpt"]), import_checkpoint([tmp_path / "w.ckpt"], model)):
        assert made.graph == graph
        assert made.facts["imported"]["origin"] == "smallcnn"
        for name, value in weights.items():
            np.testing.assert_array_equal(made.weights[name], value)


@pytest.mark.parametrize("origin", [None, "order"])
def test_variances_below_0_are_refused(origin, tmp_path):
    tensors = public_tensors("torchvision-mobilenet_v2_x0_5")
    tensors["features.0.1.running_var"] = -tensors["features.0.1.running_var"]
    line = refusal(write_pth(tmp_path / "w.pth", tensors), "mobilenet_v2:width=0.5", origin=origin)
    assert "damaged: variances below 0 for stem.bn.running_var" in line


# --- which network it is -------------------------------------------------------------------------------------------


@pytest.mark.parametrize(("name", "model", "origin", "told"), DEFINITIONS, ids=[row[0] for row in DEFINITIONS])
def test_the_network_is_recognised(name, model, origin, told, tmp_path):
    path = write_pth(tmp_path / "w", public_tensors(name), prefix="net.")
    made = import_checkpoint([path], origin=None if told else origin)
    wanted = import_checkpoint([path], model, origin=None if told else origin)
    assert made.graph == wanted.graph
    assert f"recognised as {zoo.parse(model)} by its names and shapes" in made.facts["imported"]["notes"][0]


def test_a_backbone_is_recognised(tmp_path):
    tensors = public_tensors("torchvision-shufflenet_v2_x0_5")
    del tensors["fc.weight"], tensors["fc.bias"]
    path = write_pth(tmp_path / "w.pth", tensors)
    assert import_checkpoint([path], fresh_head=True).graph.name == "shufflenet_v2:scale=0.5"
    assert "--fresh-head initialises a new one" in refusal(path, None)


def test_a_network_that_fits_in_order_only(tmp_path):
    tensors = public_tensors("torchvision-mobilenet_v2_x0_5")
    renamed = {f"layer{i:03}": value for i, value in enumerate(tensors.values())}
    line = refusal(write_pth(tmp_path / "w.pth", renamed), None)
    assert "in order: --as mobilenet_v2:width=0.5 --origin order imports it that way" in line


def test_a_network_that_is_nearly_one(tmp_path):
    tensors = public_tensors("torchvision-mobilenet_v2_x0_5")
    tensors["features.7.conv.0.0.weight"] = np.ones((7, 7, 7, 7), np.float32)
    line = refusal(write_pth(tmp_path / "w.pth", tensors), None)
    assert "no registered network fits its names and shapes; closest: mobilenet_v2:width=0.5" in line
    torch.save({"x": torch.ones(3)}, tmp_path / "w.pth")
    assert "closest" not in refusal(tmp_path / "w.pth", None)


def test_a_network_with_something_else_next_to_it(tmp_path):
    path = write_pth(tmp_path / "w.pth", public_tensors("torchvision-squeezenet1_1") | {"mean": np.ones(3, np.float32)})
    line = refusal(path, None)
    assert "does not fit squeezenet_1_1 as torchvision names it: 1 not in the network (mean)" in line


def test_keras_weights_with_automatic_names_are_recognised():
    made = import_checkpoint([shared("weights/vww96_mobilenet_v1_0.25_keras_bn_float32.npz")])
    assert made.facts["imported"]["model"] == "mobilenet_v1:width=0.25,bias=true"


def test_a_whole_module_that_fits_nothing_says_what_it_is(tmp_path):
    torch.save(torch.nn.Linear(2, 3), tmp_path / "w.pt")
    line = refusal(tmp_path / "w.pt", None)
    assert "a pickled network ('torch.nn.modules.linear.Linear')" in line
    assert "torch.save(model.state_dict(), 'weights.pth')" in line


# --- real weights --------------------------------------------------------------------------------------------------


def test_squeezenet_gives_the_outputs_published_with_it():
    made = import_checkpoint([shared("weights/squeezenet1.1_imagenet_float32.npz")], "squeezenet_1_1")
    assert made.facts["imported"]["origin"] == "gluon"
    vectors = np.load(shared("weights/squeezenet1.1_test_vectors.npz"))
    module = to_module(made.graph, made.weights).eval()
    for i in range(3):
        with torch.no_grad():
            found = module(torch.from_numpy(vectors[f"input_{i}"])).numpy()
        # 26 float32 layers in another order of summation; outputs reach 296, whose last bit is 3e-5
        np.testing.assert_allclose(found.ravel(), vectors[f"output_{i}"].ravel(), rtol=0, atol=2e-4)


def test_two_formats_of_one_network_agree_on_everything_but_the_weights():
    pytest.importorskip("tflite")
    lite = import_checkpoint([shared("weights/mobilenet_v1_0.25_224_float.tflite")], "mobilenet_v1:width=0.25")
    keras = import_checkpoint([shared(KERAS_V1)], "mobilenet_v1:width=0.25")
    assert lite.preprocessing == keras.preprocessing
    assert lite.labels == keras.labels == imagenet.labels()
    assert keras.graph == zoo.mobilenet_v1(width=0.25)
    assert [node.op.kind for node in lite.graph] == [n.op.kind for n in keras.graph if n.op.kind != "batch_norm"]


@pytest.mark.parametrize("below", [None, "model_weights"])
def test_keras_h5_is_the_npz(below, tmp_path):
    h5py = pytest.importorskip("h5py")
    path = shared(KERAS_V1)
    stored = dict(np.load(path))
    with h5py.File(tmp_path / "w.h5", "w") as file:
        root = file.create_group(below) if below else file
        layers = sorted({name.rpartition("/")[0] for name in stored})
        root.attrs["layer_names"] = [layer.encode() for layer in layers]
        for layer in layers:
            group = root.create_group(layer)
            own = sorted(name for name in stored if name.startswith(f"{layer}/"))
            group.attrs["weight_names"] = [f"{name}:0".encode() for name in own]
            for name in own:
                group[f"{name}:0"] = stored[name]
    one, other = (import_checkpoint([file], "mobilenet_v1:width=0.25") for file in (path, tmp_path / "w.h5"))
    assert one.graph == other.graph
    for name, value in one.weights.items():
        np.testing.assert_array_equal(other.weights[name], value)


def keras_v2_tensors(graph, published):
    """MobileNetV2's tensors as keras_applications/mobilenet_v2.py lays them out, under its names or the files'.

    The names in the published files are those that public converters read: `mobl0_conv_0_depthwise`, for instance.
    """
    rng = np.random.default_rng(0)
    layers = {"stem": ("Conv1", "bn_Conv1"), "last": ("Conv_1", "Conv_1_bn")}
    for i in range(1, 18):
        block = "expanded_conv" if i == 1 else f"block_{i - 1}"
        for step in ("expand", "depthwise", "project"):
            layers[f"block{i}.{step}"] = (f"{block}_{step}", f"{block}_{step}_BN")
            if published:
                layers[f"block{i}.{step}"] = (f"mobl{i - 1}_conv_{i - 1}_{step}", f"bn{i - 1}_conv_{i - 1}_bn_{step}")
    ours, theirs = {}, {}
    for name, weight in graph.weights.items():
        layer, _, key = name.rpartition(".")
        value = ours[name] = rng.uniform(0.5, 1.5, weight.shape).astype(np.float32)
        if layer == "classifier":
            theirs[f"Logits/{'kernel' if key == 'weight' else key}"] = value.T
            continue
        group, _, kind = layer.rpartition(".")
        conv, bn = layers[group]
        if kind == "bn":
            own = {"weight": "gamma", "bias": "beta", "running_mean": "moving_mean", "running_var": "moving_variance"}
            theirs[f"{bn}/{own[key]}"] = value
        elif group.endswith("depthwise"):
            theirs[f"{conv}/depthwise_kernel"] = value.transpose(2, 3, 0, 1)
        else:
            theirs[f"{conv}/kernel"] = value.transpose(2, 3, 1, 0)
    return ours, theirs


@pytest.mark.parametrize(
    ("published", "classifier"),
    [(True, "Logits"), (False, "Logits"), (False, "predictions")],  # before and after keras-applications 1.0.8
)
def test_keras_names_of_mobilenet_v2(published, classifier, tmp_path):
    graph = zoo.mobilenet_v2(width=0.35)
    ours, theirs = keras_v2_tensors(graph, published)
    np.savez(tmp_path / "w.npz", **{name.replace("Logits", classifier): value for name, value in theirs.items()})
    made = import_checkpoint([tmp_path / "w.npz"], "mobilenet_v2:width=0.35")
    assert made.graph == graph
    assert made.facts["imported"]["origin"] == "keras"
    assert (made.preprocessing.mean, made.preprocessing.std) == ((0.5,) * 3, (0.5,) * 3)
    for name, value in ours.items():
        np.testing.assert_array_equal(made.weights[name], value)


# --- features only -------------------------------------------------------------------------------------------------

BACKBONES = [
    ("weights/mobilenetv2_1.0_features_bn_float32.npz", "mobilenet_v2", "gluon", ["classifier"]),
    ("weights/shufflenetv2_x0.5_backbone.pth", "shufflenet_v2:scale=0.5", "fastestdet",
     ["last.conv", "last.bn", "classifier"]),
]  # fmt: skip


@pytest.mark.parametrize(("file", "model", "origin", "fresh"), BACKBONES, ids=["mobilenet_v2", "shufflenet_v2"])
def test_a_backbone_gets_a_fresh_head(file, model, origin, fresh):
    path = shared(file)
    line = refusal(path, model)
    assert line.endswith(f"it lacks {', '.join(fresh)}: if the head was cut off, --fresh-head initialises a new one")
    made = import_checkpoint([path], model, fresh_head=True, labels=["cat", "dog"])
    assert (made.facts["imported"]["origin"], made.facts["imported"]["fresh"]) == (origin, fresh)
    assert (made.labels, made.graph.output_shape) == (("cat", "dog"), (2,))
    initial = initial_weights(made.graph)
    for name, value in made.weights.items():
        layer, _, key = name.rpartition(".")
        if layer in fresh:
            np.testing.assert_array_equal(value, initial[name])
        elif key == "weight" and layer.endswith("conv"):
            assert not np.array_equal(value, initial[name])


def test_the_gluon_backbone_computes_what_its_format_says():
    """Three layers of it against a formula: symmetric padding, epsilon 1e-5, an expansion in the first block."""
    path = shared("weights/mobilenetv2_1.0_features_bn_float32.npz")
    made = import_checkpoint([path], "mobilenet_v2", fresh_head=True, overrides=Overrides(resolution=32))
    file = np.load(path)

    def normed(y, layer):
        gamma, beta, mean, variance = (
            torch.from_numpy(file[f"mobilenetv20_features_{layer}_{key}"])[:, None, None].double()
            for key in ("gamma", "beta", "running_mean", "running_var")
        )
        return (y - mean) / torch.sqrt(variance + 1e-5) * gamma + beta

    def conv(x, name, **how):
        weight = torch.from_numpy(file[f"mobilenetv20_features_{name}_weight"]).double()
        return torch.nn.functional.conv2d(x, weight, **how)

    x = torch.from_numpy(public_image(32, 0)).double()
    y = normed(conv(x, "conv0", stride=2, padding=1), "batchnorm0").clamp(0, 6)
    block = "linearbottleneck0_"
    y = normed(conv(y, f"{block}conv0"), f"{block}batchnorm0").clamp(0, 6)
    y = normed(conv(y, f"{block}conv1", padding=1, groups=len(y[0])), f"{block}batchnorm1").clamp(0, 6)
    y = normed(conv(y, f"{block}conv2"), f"{block}batchnorm2")
    nodes = made.graph.nodes[: made.graph.nodes.index(made.graph["block1.project.bn"]) + 1]
    beginning = Graph("beginning", nodes, (Output("logits", nodes[-1].name),), (nodes[-1].name,))
    found = run(beginning, made.weights, public_image(32, 0).transpose(0, 2, 3, 1))
    np.testing.assert_allclose(found, y.numpy().transpose(0, 2, 3, 1), rtol=0, atol=1e-9 * float(y.abs().max()))


def test_a_fresh_head_for_a_whole_network_is_refused(squeezenet):
    assert "drop --fresh-head" in refusal(squeezenet, "squeezenet_1_1", fresh_head=True)


def test_a_fresh_head_is_no_way_around_other_gaps(tmp_path):
    tensors = public_tensors("torchvision-shufflenet_v2_x0_5")
    for name in ("fc.weight", "fc.bias", "stage3.2.branch2.3.weight"):
        del tensors[name]
    path = write_pth(tmp_path / "w.pth", tensors)
    line = refusal(path, "shufflenet_v2:scale=0.5", fresh_head=True)
    assert "1 missing from the file (stage3.2.branch2.3.weight)" in line


def test_a_foreign_head_must_go_first(tmp_path):
    tensors = public_tensors("torchvision-shufflenet_v2_x0_5")
    tensors["detector.weight"] = tensors.pop("fc.weight")
    del tensors["fc.bias"]
    path = write_pth(tmp_path / "w.pth", tensors)
    line = refusal(path, "shufflenet_v2:scale=0.5", fresh_head=True)
    assert "1 not in the network (detector.weight)" in line


# --- files that are not what they seem -------------------------------------------------------------------------------


@pytest.mark.parametrize("option", ["padding=same", "epsilon=0.001"])
def test_a_default_that_was_given_and_does_not_fit(option, tmp_path):
    np.savez(tmp_path / "w.npz", **public_tensors("torchvision-mobilenet_v2_x0_5"))
    refusal(tmp_path / "w.npz", f"mobilenet_v2:width=0.5,{option}")


@pytest.mark.parametrize("how", [{"origin": "nonsense"}, {"origin": "torchvision"}, {"fresh_head": True}], ids=str)
def test_options_without_effect_on_tflite(how):
    refusal(shared("weights/mobilenet_v1_0.25_128_quant.tflite"), "mobilenet_v1:width=0.25", **how)


@pytest.mark.parametrize(
    ("tensors", "model", "how"),
    [
        ({"a": np.float32(3)}, "mobilenet_v1", {"origin": "order"}),
        ({"a": np.ones((0, 3), np.float32)}, "mobilenet_v1", {"origin": "order"}),
        ({"conv_preds/kernel": np.float32(3)}, "mobilenet_v1", {}),
        ({"conv_preds/kernel": np.ones((5, 0), np.float32)}, "mobilenet_v1", {}),
        ({"classifier.0.weight": np.ones((0, 25088), np.float32)}, "vgg16", {}),
    ],
    ids=["order scalar", "order empty", "keras scalar", "keras empty", "vgg empty"],
)
def test_odd_shapes(tensors, model, how, tmp_path):
    np.savez(tmp_path / "w.npz", **tensors)
    refusal(tmp_path / "w.npz", model, **how)


def test_weights_that_are_no_numbers(tmp_path):
    tensors = public_tensors("torchvision-mobilenet_v2_x0_5")
    tensors["features.0.0.weight"] = tensors["features.0.0.weight"] * np.nan
    np.savez(tmp_path / "w.npz", **tensors)
    refusal(tmp_path / "w.npz", "mobilenet_v2:width=0.5")


def test_a_name_with_a_line_break(tmp_path):
    torch.save({"features.0.weight": torch.ones(2), "x\ny": torch.ones(1)}, tmp_path / "w.pth")
    refusal(tmp_path / "w.pth", "squeezenet_1_1")
