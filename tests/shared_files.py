"""Real weights and images, which lie beside the repository and not in it: a test that finds none is skipped."""

from pathlib import Path

import pytest

SHARED = Path(__file__).parents[2] / "shared"


def shared(name: str) -> Path:
    """The file `name` of the shared folder; skips the test that asks if it is not there."""
    path = SHARED / name
    if not path.is_file():
        pytest.skip(f"needs the real file {name}, which is not part of the repository")
    return path
