"""Bundled trained networks, so that an image can be classified without a download.

Each has a .safetensors file and a model card, NAME.md: data and licence, recipe, seeds, accuracy. Commands and
`smallcnn.open` accept the name in place of a model file.
"""

from pathlib import Path

_FOLDER = Path(__file__).parent

DEFAULT = "cifar10"
"""The model of `smallcnn predict IMAGE`."""


def names() -> list[str]:
    """The names of the bundled networks."""
    return sorted(path.stem for path in _FOLDER.glob("*.safetensors"))


def located(path: Path | str) -> Path:
    """The file of the bundled network named `path`; `path` itself if that file exists or no network has the name."""
    path = Path(path)
    return path if path.exists() or str(path) not in names() else _FOLDER / f"{path}.safetensors"
