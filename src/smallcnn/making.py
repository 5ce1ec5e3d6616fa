"""`init` and `export`: model files from a network's name, or from other model files.

smallcnn.init("mobilenet_v1:width=0.5", "untrained.safetensors", classes=5)
smallcnn.export("runs/flowers/best.safetensors", "flowers.onnx")
"""

from dataclasses import replace
from pathlib import Path

from smallcnn import zoo
from smallcnn.errors import FileError
from smallcnn.image.fit import Fit, Preprocessing
from smallcnn.ir.predictors import object_classes
from smallcnn.model import store
from smallcnn.model.facts import Facts
from smallcnn.model.kinds import KINDS, check_kind
from smallcnn.model.model import Model
from smallcnn.model.shipped import located
from smallcnn.reference.initial import initial_weights
from smallcnn.system.files import check_suffix, check_writable
from smallcnn.tasks.classification import Classification
from smallcnn.tasks.detection import Detection
from smallcnn.transform.limits import Limits, limited


def init(
    model: str,
    out: str | Path,
    *,
    resolution: int | None = None,
    classes: int | None = None,
    channels: int | None = None,
    seed: int = 0,
) -> Model:
    """Writes the untrained network `model` (a name with options) as a .safetensors model file; returns its contents.

    Options that are None take the network's own values. Raises GraphError for an invalid network, FileError if the file
    cannot be written.
    """
    out = check_suffix(out, ".safetensors", "a model file")
    common = {"resolution": resolution, "classes": classes, "channels": channels}
    graph = zoo.parse(model).build(**{name: value for name, value in common.items() if value is not None})
    objects = object_classes(graph)
    labels = tuple(f"class {i}" for i in range(objects or graph.output_shape[0]))
    height, width, depth = graph.input_shape
    fit: Fit = "stretch" if objects else "crop"
    preprocessing = Preprocessing((height, width), (0.5,) * depth, (0.5,) * depth, fit=fit)
    facts = Facts(model=graph.name, trained=False, other={"seed": seed})
    task = Detection(labels) if objects else Classification(labels)
    made = Model(graph, initial_weights(graph, seed), task, preprocessing, facts)
    store.save(made, out)
    return made


def export(
    file: str | Path | Model, out: str | Path, *, probabilities: bool = False, limits: Limits | None = None
) -> float:
    """Writes a .safetensors model file, or its contents, as ONNX; returns the largest relative error found.

    The ONNX file outputs logits, or `probabilities` on request; that of a detector keeps what `limits` say. It is run
    and compared with the network's plain definition before it is kept: ExportError if they differ, FileError if a file
    cannot be read or written.
    """
    from smallcnn import onnx

    out = check_suffix(out, ".onnx", "an ONNX file")
    if not isinstance(file, Model):
        file = located(file)
        if not KINDS[check_kind(file)].trainable:
            raise FileError(f"{file}: export starts from a .safetensors model file")
        check_writable(out)
        file = store.load(file)
    if limits is not None:
        file = replace(file, graph=limited(file.graph, limits))
    return onnx.export(file, out, probabilities=probabilities)
