"""Arrays from MATLAB .mat files."""

from pathlib import Path

import numpy as np

from smallcnn.errors import DataError, MissingExtra


def read_mat(path: Path, *names: str) -> tuple[np.ndarray, ...]:
    """The arrays `names`. Raises DataError if the file cannot be read or lacks one."""
    try:
        from scipy.io import loadmat  # type: ignore[import-untyped]
    except ImportError as error:
        raise MissingExtra("reading .mat files", "train") from error
    try:
        arrays = loadmat(path, variable_names=names)
        return tuple(arrays[name] for name in names)
    except Exception as error:  # scipy raises anything on damaged data
        why = " ".join(str(error).split())
        raise DataError(f"{path}: not a .mat file with {' and '.join(names)} ({why})") from error
