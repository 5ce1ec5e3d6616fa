"""Every network the package knows, one file per paper, each read off the paper's table.

graph = zoo.mobilenet_v1(width=0.5, resolution=192, classes=5)
graph = zoo.parse("mobilenet_v1:width=0.5").build(resolution=192, classes=5)
"""

from smallcnn.zoo.mobilenet_v1 import mobilenet_v1
from smallcnn.zoo.mobilenet_v2 import mobilenet_v2
from smallcnn.zoo.registry import Model, Option, names, options, parse

__all__ = ["Model", "Option", "mobilenet_v1", "mobilenet_v2", "names", "options", "parse"]
