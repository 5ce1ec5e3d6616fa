"""Trained networks that come with the package, so that the first image can be classified without a download.

One .safetensors per name, and beside it a model card, NAME.md: data and its licence, recipe, seeds, accuracy. Wherever
a command or `smallcnn.open` takes a model file, it takes the name.
"""

from pathlib import Path

_FOLDER = Path(__file__).parent

DEFAULT = "cifar10"
"""What `smallcnn predict IMAGE` asks."""


def names() -> list[str]:
    """The networks there are."""
    return sorted(path.stem for path in _FOLDER.glob("*.safetensors"))


def located(path: Path | str) -> Path:
    """The file of the network called `path`; `path` itself if there is a file of that name, or no such network."""
    path = Path(path)
    return path if path.exists() or str(path) not in names() else _FOLDER / f"{path}.safetensors"
