"""The bytes of a file on disk, or one line that says why there are none."""

from pathlib import Path

from smallcnn.errors import FileError
from smallcnn.system.files import check_regular


def content(path: Path | str, most: int = -1) -> bytes:
    """The bytes of a file, the first `most` if given. Raises FileError if it is missing, or no regular file."""
    path = Path(path)
    check_regular(path)
    if not path.is_file():
        raise FileError(f"{path}: a folder, not a file" if path.is_dir() else f"{path}: no such file")
    try:
        with path.open("rb") as file:
            return file.read(most)
    except OSError as error:
        raise FileError(f"{path}: cannot be read ({error.strerror or error})") from error
