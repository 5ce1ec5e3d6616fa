"""Another kind of processor, as far as this one can stand in for it: the tests' options --precision and --level.

`--precision auto` then trains in that precision, and PyTorch, the compiler and the training kernels use no newer vector
instructions. What the options say is in the environment, so that processes which tests start can follow.
"""

import os
from pathlib import Path

from smallcnn.system.cpu import cpu_flags

PRECISIONS = ("float32", "bfloat16")
# a level as PyTorch, oneDNN and C compilers call it; the lowest first
LEVELS = {
    "sse41": ("default", "SSE41", "nehalem"),
    "avx2": ("avx2", "AVX2", "haswell"),
    "avxvnni": ("avx2", "AVX2_VNNI", "haswell"),
    "avx512": ("avx512", "AVX512_CORE", "native"),
    "vnni": ("avx512", "AVX512_CORE_VNNI", "native"),
}
# a level in the words of Linux
_FLAGS = {"sse41": "sse4_1", "avx2": "avx2", "avxvnni": "avx_vnni", "avx512": "avx512bw", "vnni": "avx512_vbmi2"}
_PRECISION, _LEVEL = "SMALLCNN_TESTS_PRECISION", "SMALLCNN_TESTS_LEVEL"


def choose(precision: str | None, level: str | None) -> None:
    """For this process and those it starts; before torch is imported.

    Raises ValueError if the processor does not have the level.
    """
    if level and not has(level):
        raise ValueError(f"--level {level}: this processor has no {_FLAGS[level]}")
    if precision:
        os.environ[_PRECISION] = precision
    if level:
        os.environ[_LEVEL] = level
        os.environ["ATEN_CPU_CAPABILITY"], os.environ["ONEDNN_MAX_CPU_ISA"], _ = LEVELS[level]


def level() -> str | None:
    """The level that was chosen, if any."""
    return os.environ.get(_LEVEL)


def has(level: str) -> bool:
    """Whether the processor has the level, whatever was chosen; False where that cannot be read."""
    return _FLAGS[level] in cpu_flags()


def follow() -> None:
    """Makes this process what was chosen."""
    if precision := os.environ.get(_PRECISION):
        from smallcnn.train import choice

        real = choice.possible
        choice.possible = lambda way, wanted, device: real(
            way, precision if wanted == "auto" and way != "kernels" else wanted, device
        )
    if chosen := level():
        from smallcnn.compiler import targets
        from smallcnn.train.fast import native

        for name in list(LEVELS)[list(LEVELS).index(chosen) + 1 :]:
            targets._BEST_FIRST.pop(name, None)
        march = f"-march={LEVELS[chosen][2]}"
        native._FLAGS = tuple(march if flag == "-march=native" else flag for flag in native._FLAGS)


def forget_kernels() -> None:
    """Lets short runs compute alike, whether or not another test has compiled the training kernels."""
    from smallcnn.train.fast import native

    native.is_compiled = lambda: False


def description() -> str:
    """One line about what tests run on."""
    precision = os.environ.get(_PRECISION, "what `auto` takes")
    return f"training in {precision}, vectors of {level() or 'the processor'}"


def program(path: Path) -> str:
    """Python code that runs the script at `path`, and follows."""
    return f"""
import runpy, sys
sys.path.insert(0, {str(Path(__file__).parent)!r})
import machine
machine.follow()
sys.argv[0] = {str(path)!r}
runpy.run_path(sys.argv[0], run_name="__main__")
"""
