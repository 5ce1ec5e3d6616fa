"""The studies by name."""

from smallcnn.errors import SmallcnnError, closest
from smallcnn.study import distillation, effnet, mobilenet_v1, mobilenet_v2, shufflenet_v1, yardstick
from smallcnn.study.definition import Study

STUDIES = {
    study.name: study
    for study in (
        effnet.TABLE_2,
        mobilenet_v1.NARROW_OR_SHALLOW,
        mobilenet_v1.DEPTHWISE_OR_FULL,
        shufflenet_v1.SHUFFLE,
        mobilenet_v2.BOTTLENECK,
        mobilenet_v1.WIDTH_AND_RESOLUTION,
        yardstick.RESNET_20,
        distillation.DISTILLATION,
    )
}


def find(name: str) -> Study:
    """The study called `name`. Raises SmallcnnError with the closest names."""
    if name not in STUDIES:
        raise SmallcnnError(f"no study {name!r}; {closest(name, STUDIES)}")
    return STUDIES[name]
