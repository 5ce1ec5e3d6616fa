"""The anchor-free detector: cost by arithmetic, its places, and that of SSDLite beside it."""

import pytest

from smallcnn import zoo
from smallcnn.cost.profile import profile
from smallcnn.errors import GraphError
from smallcnn.ir.predictors import detector

NAMES = ("anchor_free", "ssdlite")


@pytest.mark.parametrize(("neck", "classes"), [(96, 80), (40, 3)])
def test_cost_of_the_head_by_arithmetic(neck, classes):
    graph = zoo.anchor_free(neck=neck, classes=classes, resolution=320)
    separable = 25 * neck + neck * neck  # at one pixel
    wanted = (576 * 20**2 + 1280 * 10**2) * neck
    wanted += separable * (20**2 + 10**2 + 10**2 + 5**2)
    wanted += (2 * (separable + 25 * neck) + neck * (4 + classes)) * (20**2 + 10**2 + 5**2)
    head = [layer for layer in profile(graph).layers if layer.name.startswith(("neck", "predict"))]
    assert sum(layer.mult_adds for layer in head) == wanted
    boxes = detector(graph).op.anchors
    assert [grid.cells for grid in boxes] == [(20, 20), (10, 10), (5, 5)]
    assert detector(graph).op.anchor_free


@pytest.mark.parametrize(("resolution", "classes"), [(160, 1), (320, 1), (320, 80)])
def test_it_costs_as_much_as_ssdlite(resolution, classes):
    of = {name: profile(zoo.parse(name).build(resolution=resolution, classes=classes)) for name in NAMES}
    assert of["anchor_free"].mult_adds < 1.005 * of["ssdlite"].mult_adds
    assert of["anchor_free"].parameters < of["ssdlite"].parameters


@pytest.mark.parametrize("resolution", [96, 150, 320])
@pytest.mark.parametrize("backbone", [name for name in zoo.names() if name not in ("anchor_free", "ssd", "ssdlite")])
def test_every_classifier_is_a_backbone(backbone, resolution):
    """Also those whose pools have no padding, such as SqueezeNet's: the neck joins the classifier's own maps."""
    alone = zoo.parse(backbone).build(resolution=resolution)
    graph = zoo.parse(f"anchor_free:backbone={backbone}").build(resolution=resolution, classes=3)
    assert graph["neck2.add"].shape[:2] == alone[alone.features].shape[:2]


def test_options_out_of_range():
    with pytest.raises(GraphError, match=r"^neck must be 1 to 1024, not 0$"):
        zoo.anchor_free(neck=0)
    with pytest.raises(GraphError, match="ssd is a detector; a backbone is a classifier"):
        zoo.anchor_free(backbone="ssd")
