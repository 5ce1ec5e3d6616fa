"""The studies by name."""

from smallcnn.errors import SmallcnnError, closest
from smallcnn.study import effnet
from smallcnn.study.definition import Study

STUDIES = {study.name: study for study in (effnet.TABLE_2,)}


def find(name: str) -> Study:
    """The study called `name`; SmallcnnError with the closest names."""
    if name not in STUDIES:
        raise SmallcnnError(f"no study {name!r}; {closest(name, STUDIES)}")
    return STUDIES[name]
