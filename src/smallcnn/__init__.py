"""smallcnn turns a folder of images and a device budget into a small CNN that runs in real time on a CPU.

    graph = smallcnn.zoo.mobilenet_v1(width=0.5)            a Graph; no framework
    smallcnn.profile(graph).mult_adds                       exact integer
    module = smallcnn.to_module(graph)                      torch.nn.Module (needs the 'train' extra)
    smallcnn.train("mobilenet_v1", "photos", "runs/a")      trains; the folder then holds best.safetensors
    smallcnn.export("runs/a/best.safetensors", "a.onnx")    ONNX, compared before it is kept
    smallcnn.compile("a.onnx", "a.so")                      machine code (needs the 'compile' extra)
    smallcnn.evaluate("a.onnx", "photos").metrics.top1      accuracy on labelled images
    smallcnn.quantize("a.onnx", "photos", "a8.safetensors") int8, if as accurate on other images
    smallcnn.compress("a.onnx", "photos", "b.safetensors", [Prune(budget=Budget.parse("0.5x"))])  fewer channels
    net = smallcnn.open("a.onnx", threads=1)                any model file, one interface
    net.classify(["a.jpg"])                                 labels and probabilities

Names are loaded on first use, so that importing the package costs nothing.
"""

import importlib
from typing import TYPE_CHECKING, Any

from smallcnn._version import __version__

if TYPE_CHECKING:
    from smallcnn import compress as compress
    from smallcnn import zoo
    from smallcnn.compiler.compiling import compile_file as compile  # noqa: F401
    from smallcnn.cost.profile import Profile, profile
    from smallcnn.errors import SmallcnnError
    from smallcnn.evaluate import evaluate
    from smallcnn.ir.builder import Builder
    from smallcnn.ir.graph import Graph
    from smallcnn.making import export, init
    from smallcnn.model.model import Model
    from smallcnn.module import to_module
    from smallcnn.quantizing import quantize
    from smallcnn.runtime import open as open
    from smallcnn.train.run import train

_HOMES = {
    "Model": "model.model",
    "Builder": "ir.builder",
    "Graph": "ir.graph",
    "Profile": "cost.profile",
    "SmallcnnError": "errors",
    "compile": "compiler.compiling:compile_file",
    "compress": "",
    "evaluate": "",
    "export": "making",
    "init": "making",
    "open": "runtime",
    "profile": "cost.profile",
    "quantize": "quantizing",
    "to_module": "module",
    "train": "",
    "zoo": "",
}
"""The module that defines each name, and its name there if it has another; "" for a module itself.

The modules `compress`, `evaluate` and `train` are callable.
"""

__all__ = [
    "Builder",
    "Graph",
    "Model",
    "Profile",
    "SmallcnnError",
    "__version__",
    "compress",
    "evaluate",
    "export",
    "init",
    "profile",
    "quantize",
    "to_module",
    "train",
    "zoo",
]  # fmt: skip


def __getattr__(name: str) -> Any:
    if name not in _HOMES:
        raise AttributeError(f"module 'smallcnn' has no attribute {name!r}")
    if not _HOMES[name]:
        return importlib.import_module(f"smallcnn.{name}")
    module, _, attribute = _HOMES[name].partition(":")
    return getattr(importlib.import_module(f"smallcnn.{module}"), attribute or name)


def __dir__() -> list[str]:
    return sorted({*globals(), *_HOMES})
