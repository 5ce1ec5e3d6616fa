"""smallcnn: from a folder of images and a device budget to a small CNN running in real time on a CPU.

    graph = smallcnn.zoo.mobilenet_v1(width=0.5)     a Graph; no framework
    smallcnn.profile(graph).mult_adds                exact integer
    model = smallcnn.to_module(graph)                torch.nn.Module (needs the 'train' extra)
    net = smallcnn.open("model.onnx", threads=1)     any model file, one interface
    net.classify(["a.jpg"])                          labels and probabilities

Names are loaded when they are first used, so that importing the package costs nothing.
"""

import importlib
from typing import TYPE_CHECKING, Any

from smallcnn._version import __version__

if TYPE_CHECKING:
    from smallcnn import zoo
    from smallcnn.artifact import Artifact
    from smallcnn.builder import Builder
    from smallcnn.cost import Profile, profile
    from smallcnn.errors import SmallcnnError
    from smallcnn.graph import Graph
    from smallcnn.module import to_module
    from smallcnn.runtime import open as open

_HOMES = {
    "Artifact": "artifact",
    "Builder": "builder",
    "Graph": "graph",
    "Profile": "cost",
    "SmallcnnError": "errors",
    "open": "runtime",
    "profile": "cost",
    "to_module": "module",
    "zoo": "",
}

__all__ = [
    "Artifact", "Builder", "Graph", "Profile", "SmallcnnError", "__version__", "profile", "to_module", "zoo",
]  # fmt: skip


def __getattr__(name: str) -> Any:
    if name not in _HOMES:
        raise AttributeError(f"module 'smallcnn' has no attribute {name!r}")
    if not _HOMES[name]:
        return importlib.import_module(f"smallcnn.{name}")
    return getattr(importlib.import_module(f"smallcnn.{_HOMES[name]}"), name)


def __dir__() -> list[str]:
    return sorted({*globals(), *_HOMES})
