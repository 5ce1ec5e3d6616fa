"""Errors that a user can correct.

    SmallcnnError            one line for the user; the command prints it and exits with code 2
        AccuracyError        a quantized network that loses more accuracy than allowed
        AnswerError          a network whose answer is not a finite number
        CompileError         a network that the compiler cannot turn into machine code
        ExportError          an exported file whose answers differ from the network's
        GraphError           an invalid network: shapes, names or options do not fit
        FileError            a file that is missing, damaged, foreign or cannot be written
            DeltaError       an update that is damaged, not signed as it must be, or for another file
            ImageError       an image that cannot be decoded
            WriteError       a file that cannot be written: no permission, disk full
        DataError            a data set that cannot be used or does not fit the model
        LostProcess          another process of a run that has ended or does not answer
        MissingExtra         a missing optional dependency; names the extra to install

Any other exception raised by the library is a bug.
"""

import difflib
import importlib.util
from collections.abc import Iterable


class SmallcnnError(Exception):
    """An error the user can correct; its text is one line that says what is wrong and what is allowed."""


class AccuracyError(SmallcnnError):
    """A quantized network that loses more accuracy than allowed."""


class AnswerError(SmallcnnError):
    """A network whose answer is not a finite number."""


class CompileError(SmallcnnError):
    """A network that the compiler cannot turn into machine code."""


class ExportError(SmallcnnError):
    """An exported file whose answers differ from the network's."""


class GraphError(SmallcnnError, ValueError):
    """A network whose shapes, names or options do not fit together."""


class FileError(SmallcnnError, ValueError):
    """A file that is missing, damaged, of another kind, or cannot be written."""


class DeltaError(FileError):
    """An update that is damaged, not signed as it must be, or for another file."""


class ImageError(FileError):
    """An image that cannot be decoded."""


class ImageNote(UserWarning):
    """A note about an assumption or something ignored in an image, worded to fit every image of its kind.

    `image` is the image that caused it. Commands show each note once.
    """

    def __init__(self, text: str, image: str) -> None:
        super().__init__(text)
        self.image = image

    def __str__(self) -> str:
        return str(self.args[0])


class WriteError(FileError):
    """A file that cannot be written."""


class LostProcess(SmallcnnError):  # noqa: N818  (reads better where it is raised)
    """Another process of a run is gone. What torch still holds of the connections must not be destroyed."""


class DataError(SmallcnnError, ValueError):
    """A data set that cannot be used, or that does not fit the model."""


class MissingExtra(SmallcnnError, ImportError):  # noqa: N818  (reads better where it is raised)
    """An optional dependency is not installed."""

    def __init__(self, what: str, extra: str) -> None:
        super().__init__(f"{what} needs the '{extra}' extra: pip install 'smallcnn[{extra}]'")


TRAIN = ("torch", "kornia", "sklearn", "matplotlib", "tensorboard")
"""Modules of the 'train' extra that training and the demo use."""


def require(what: str, extra: str, *modules: str) -> None:
    """Raises MissingExtra if one of `modules` is not installed; imports none of them."""
    if any(importlib.util.find_spec(module) is None for module in modules):
        raise MissingExtra(what, extra)


def closest(name: str, known: Iterable[str], cutoff: float = 0.5) -> str:
    """The known names closest to `name`, for the end of an error message; all of them if none is close.

    `cutoff` is the least similarity, from 0 to 1, as difflib defines it.
    """
    known = sorted(known)
    longer = [other for other in known if name and other.startswith(f"{name}_")]  # a family's name: its members
    near = (longer + [x for x in difflib.get_close_matches(name, known, n=3, cutoff=cutoff) if x not in longer])[:3]
    return f"closest: {', '.join(near)}" if near else f"known: {', '.join(known)}"
