"""Layouts of public weights: names, storage and preparation of images; one file per origin."""

from smallcnn.checkpoints.layouts import gluon, keras, megvii, timm, torchvision, torchvision_detection
from smallcnn.checkpoints.layouts.layout import PYTORCH, TORCH, Layout, torch_array
from smallcnn.checkpoints.layouts.own import OWN, own

__all__ = ["LAYOUTS", "OWN", "PYTORCH", "TORCH", "Layout", "layouts_of", "own", "torch_array"]

LAYOUTS: tuple[Layout, ...] = tuple(
    layout for origin in (torchvision, torchvision_detection, timm, keras, gluon, megvii) for layout in origin.LAYOUTS
)


def layouts_of(model: str) -> list[Layout]:
    """The layouts of a network's public weights, by its registry name."""
    return [layout for layout in LAYOUTS if layout.model == model]
