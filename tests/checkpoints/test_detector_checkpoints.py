"""torchvision's detectors as files: every tensor in its place, the definition's numbers, anchors, boxes and labels."""

import json

import numpy as np
import pytest
import safetensors.numpy

from public_logits import public_definition
from public_weights import public_image, public_weight
from smallcnn import zoo
from smallcnn.checkpoints.importing import import_checkpoint
from smallcnn.errors import FileError
from smallcnn.image import coco
from smallcnn.ir import ops
from smallcnn.ir.graph import Graph, Output
from smallcnn.model.store import load, save
from smallcnn.reference import floating as reference
from smallcnn.reference.detection import anchors, detect
from smallcnn.reference.initial import initial_weights
from smallcnn.tasks.detection import Detection

SSD, SSDLITE = (
    "ssd:backbone=vgg16",
    ("ssdlite:backbone=mobilenet_v3_large,reduced_tail=true,padding=symmetric,form=torchvision"),
)
DEFINITIONS = [  # public definition, what the user says, the network, mean, standard deviation
    ("torchvision-ssdlite320_mobilenet_v3_large", "ssdlite", SSDLITE, (0.5,) * 3, (0.5,) * 3),
    ("torchvision-ssd300_vgg16", "ssd", SSD, (0.48235, 0.45882, 0.40784), (1 / 255,) * 3),
]


def tensors_of(public):
    return {key: public_weight(key, tuple(shape)) for key, shape in public["state"]}


def found_by(graph: Graph) -> tuple[ops.Detect, tuple[str, ...]]:
    """The last operator, and the nodes of codes and scores."""
    ((op, inputs),) = ((node.op, node.inputs) for node in graph if isinstance(node.op, ops.Detect))
    return op, inputs


def up_to(graph: Graph, names: tuple[str, ...]) -> Graph:
    needed = set(names)
    for node in reversed(graph.nodes):
        needed.update(node.inputs if node.name in needed else ())
    nodes = tuple(node for node in graph if node.name in needed)
    return Graph(graph.name, nodes, tuple(Output(name, name) for name in names), graph.taps)


@pytest.fixture(scope="module")
def files(tmp_path_factory):
    """The public definitions' weights, by name."""
    folder = tmp_path_factory.mktemp("detectors")
    found = {name: folder / f"{name}.safetensors" for name, *_ in DEFINITIONS}
    for name, path in found.items():
        safetensors.numpy.save_file(tensors_of(public_definition(name)), path)
    return found


@pytest.mark.parametrize(("name", "told", "model", "mean", "std"), DEFINITIONS, ids=[row[0] for row in DEFINITIONS])
def test_a_public_file_comes_in(name, told, model, mean, std, files):
    public = public_definition(name)
    made = import_checkpoint([files[name]], told)
    assert made.graph == zoo.parse(model).build(classes=90)
    assert import_checkpoint([files[name]]).graph == made.graph, "recognised by its names"
    assert made.facts["imported"]["model"] == model
    usual = made.preprocessing
    assert (usual.size, usual.fit, usual.crop) == ((public["resolution"],) * 2, "stretch", 1.0)
    assert (usual.mean, usual.std, usual.interpolation) == (mean, std, "bilinear")
    assert made.task == Detection(coco.by_number())
    op, _ = found_by(made.graph)
    place = anchors(op) * public["resolution"]
    corners = np.concatenate([place[:, :2] - place[:, 2:] / 2, place[:, :2] + place[:, 2:] / 2], 1)
    np.testing.assert_allclose(corners[::97], public["default_boxes"], rtol=0, atol=1e-4)  # pixels, float32


@pytest.mark.parametrize("name", [
    DEFINITIONS[0][0], pytest.param(DEFINITIONS[1][0], marks=pytest.mark.long),  # 35 G Mult-Adds in plain numpy
])  # fmt: skip
def test_it_finds_the_public_detections(name, files):
    public, made = public_definition(name), import_checkpoint([files[name]])
    op, names = found_by(made.graph)
    image = public_image(public["resolution"], public["image_seed"]).transpose(0, 2, 3, 1)
    values = reference.run(up_to(made.graph, names), made.weights, image)
    coded, scores = (values[one][0] for one in names)
    for got, want in ((coded, public["codes"]), (scores, public["logits"])):
        np.testing.assert_allclose(got.ravel()[::997], want, rtol=0, atol=1e-7 * np.abs(want).max())  # float32 weights
    want = np.array(public["detections"])
    got = detect(op, coded, scores)[: len(want)]
    np.testing.assert_allclose(got[:, :4] * public["resolution"], want[:, :4], rtol=0, atol=1e-3)
    np.testing.assert_allclose(got[:, 4], want[:, 4], rtol=1e-5)
    assert (got[:, 5] + 1).tolist() == want[:, 5].tolist()  # its label 0 is the background


def test_it_is_recognised_saved_and_read(files, tmp_path):
    made = import_checkpoint([files[DEFINITIONS[0][0]]])
    assert made.graph.name == SSDLITE
    assert made.facts["imported"]["notes"][0].startswith("recognised as ssdlite by its names and shapes")
    save(made, tmp_path / "m.safetensors")
    again = load(tmp_path / "m.safetensors")
    assert (again.graph, again.task, again.preprocessing) == (made.graph, made.task, made.preprocessing)


def test_another_number_of_classes(tmp_path):
    """A fine-tuned file: 2 classes and the background, 6 anchors in each cell."""
    tensors = tensors_of(public_definition(DEFINITIONS[0][0]))
    for name, value in tensors.items():
        if "classification_head" in name and name.rpartition(".")[0].endswith(".1") and len(value) == 6 * 91:
            tensors[name] = value[: 6 * 3]
    path = tmp_path / "w.safetensors"
    safetensors.numpy.save_file(tensors, path)
    made = import_checkpoint([path], "ssdlite", labels=["cat", "dog"])
    assert made.task.labels == ("cat", "dog")
    assert import_checkpoint([path], "ssdlite").task.labels == ("class 0", "class 1")
    with pytest.raises(FileError, match="3 labels for 2 classes"):
        import_checkpoint([path], "ssdlite", labels=["cat", "dog", "bird"])


def test_scores_of_no_whole_number_of_classes(tmp_path):
    tensors = tensors_of(public_definition(DEFINITIONS[0][0]))
    last = "head.classification_head.module_list.5.1.weight"
    path = tmp_path / "w.safetensors"
    safetensors.numpy.save_file(tensors | {last: tensors[last][:-1]}, path)
    with pytest.raises(FileError, match="its last layer has 545 outputs, which are not scores of 6 anchors"):
        import_checkpoint([path], "ssdlite")


def test_ones_own_detector_keeps_its_names(tmp_path):
    graph = zoo.parse("ssdlite:backbone=mobilenet_v1,width=0.25").build(resolution=96, classes=80)
    path = tmp_path / "w.safetensors"
    safetensors.numpy.save_file(initial_weights(graph), path)
    made = import_checkpoint([path], graph.name)
    assert made.graph.weights == graph.weights
    assert made.task.labels == coco.labels()
    assert made.preprocessing.fit == "stretch"


def test_a_backbone_alone_is_still_its_classifier(tmp_path):
    """Its names are also a detector's, whose head is missing."""
    graph = zoo.mobilenet_v1(width=0.25)
    weights = {key: value for key, value in initial_weights(graph).items() if not key.startswith("classifier")}
    path = tmp_path / "w.safetensors"
    safetensors.numpy.save_file(weights, path)
    made = import_checkpoint([path], fresh_head=True)
    assert made.graph.name == "mobilenet_v1:width=0.25"


def test_names_of_coco():
    """Lin et al. 2014: 80 of the 91 categories that were planned are in the published annotations."""
    assert (len(set(coco.labels())), len(coco.by_number())) == (80, 90)
    numbered = dict(enumerate(coco.by_number(), start=1))
    assert {numbered[i] for i in (12, 26, 29, 30, 45, 66, 68, 69, 71, 83)} == {coco.UNUSED}
    assert [numbered[i] for i in (1, 18, 44, 90)] == ["person", "dog", "bottle", "toothbrush"]
    assert tuple(name for name in coco.by_number() if name != coco.UNUSED) == coco.labels()


def test_the_definition_has_the_published_number_of_parameters():
    """num_params of SSD300_VGG16_Weights and SSDLite320_MobileNet_V3_Large_Weights."""
    counts = {name: json.dumps(public_definition(name)["parameters"]) for name, *_ in DEFINITIONS}
    assert list(counts.values()) == ["3440060", "35641826"]
