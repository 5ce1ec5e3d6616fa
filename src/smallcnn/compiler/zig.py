"""The tools of the ziglang package: clang, and linkers for every target."""

import importlib.util
import os
import subprocess
import sys
import tempfile
from pathlib import Path


def headers() -> Path:
    """The compiler's own headers, the only ones every target has."""
    spec = importlib.util.find_spec("ziglang")
    assert spec is not None
    assert spec.origin is not None
    return Path(spec.origin).parent / "lib" / "include"


def run(*command: str | Path) -> None:
    """Runs one of the tools. Its cache (used for Mach-O) goes into a temporary folder.

    Raises RuntimeError with what the tool said if it fails.
    """
    with tempfile.TemporaryDirectory(prefix="smallcnn-") as cache:
        done = subprocess.run(
            [sys.executable, "-m", "ziglang", *map(str, command)],
            env=os.environ | {"ZIG_GLOBAL_CACHE_DIR": cache, "ZIG_LOCAL_CACHE_DIR": cache},
            capture_output=True,
            text=True,
            check=False,
        )
    if done.returncode:
        raise RuntimeError(f"{' '.join(map(str, command))}\n{done.stderr}")
