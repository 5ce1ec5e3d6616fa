"""Compilation targets: a platform and, on x86 and ARM, a level of vector instructions.

host                        this machine, with the best level it has
x86-64-linux                as x86-64-linux-avx2; also -sse41, -avx512; the same for x86-64-windows
arm-64-linux                any 64-bit ARM; -dotprod for ARMv8.2's dot product; also arm-64-android, arm-64-osx
arm-64-noos                 firmware: no threads, no operating system
wasm                        WebAssembly with 128-bit vectors

`ALIASES` has common names for them: raspberry-pi, android, windows, macos, browser.
"""

from dataclasses import dataclass

from smallcnn.compiler.specs import Machine
from smallcnn.errors import SmallcnnError, closest, require

_KERNEL_FEATURES = "no_runtime-no_asserts-no_bounds_query-user_context"


@dataclass(frozen=True)
class Target:
    """One platform and level, as each tool names it.

    `level` names the vector instructions; `halide` is Halide's target string for kernels, `triple` clang's; `features`
    is what the CPU must have, as native/runtime.c spells it. `vector` is the floats per vector register, `registers`
    the number of registers. `suffixes` are the file kinds that can be written, the default first.
    """

    name: str
    platform: str
    level: str
    halide: str
    triple: str
    features: tuple[str, ...]
    vector: int
    registers: int
    suffixes: tuple[str, ...]

    @property
    def machine(self) -> Machine:
        """The machine that kernels are compiled for."""
        return Machine(self.vector, self.registers, self.halide)


@dataclass(frozen=True)
class _Platform:
    halide: str
    triple: str
    suffixes: tuple[str, ...]
    levels: tuple[str, ...]  # the first is the default


@dataclass(frozen=True)
class _Level:
    """`features` has one name for everything Halide's CPU choice for this level implies (haswell for avx2: also
    BMI, LZCNT, MOVBE; skylake-avx512 for avx512)."""

    halide: tuple[str, ...]
    features: tuple[str, ...]
    vector: int
    registers: int


_AVX2 = ("sse41", "avx", "avx2", "fma", "f16c")
_LEVELS = {
    "sse41": _Level(("sse41",), ("sse41",), 4, 16),
    "avx2": _Level(_AVX2, ("avx2",), 8, 16),
    "avx512": _Level((*_AVX2, "avx512", "avx512_skylake"), ("avx512",), 16, 32),
    "neon": _Level((), (), 4, 32),
    "dotprod": _Level(("arm_dot_prod",), ("dotprod",), 4, 32),
    "simd128": _Level(("wasm_simd128",), (), 4, 16),
}
_BEST_FIRST = {"avx512": "AVX512_Skylake", "avx2": "AVX2", "sse41": "SSE41", "dotprod": "ARMDotProd", "neon": None}
"""The Halide feature that shows this machine has a level."""
_X86, _ARM = ("avx2", "sse41", "avx512"), ("neon", "dotprod")
_PLATFORMS = {
    "x86-64-linux": _Platform("x86-64-linux", "x86_64-linux-gnu", (".so", ".o"), _X86),
    "x86-64-windows": _Platform("x86-64-windows", "x86_64-pc-windows-msvc", (".dll",), _X86),
    "arm-64-linux": _Platform("arm-64-linux", "aarch64-linux-gnu", (".so", ".o"), _ARM),
    "arm-64-android": _Platform("arm-64-android", "aarch64-linux-android", (".so", ".o"), _ARM),
    "arm-64-osx": _Platform("arm-64-osx", "arm64-apple-macos11", (".o",), _ARM),
    "arm-64-noos": _Platform("arm-64-noos", "aarch64-none-elf", (".o",), _ARM),
    "wasm": _Platform("wasm-32-wasmrt", "wasm32-unknown-unknown", (".wasm",), ("simd128",)),
}


ALIASES = {
    "linux": "x86-64-linux", "linux-x86-64": "x86-64-linux", "linux-amd64": "x86-64-linux",
    "windows": "x86-64-windows", "windows-x86-64": "x86-64-windows", "windows-amd64": "x86-64-windows",
    "linux-arm64": "arm-64-linux", "linux-aarch64": "arm-64-linux", "aarch64": "arm-64-linux",
    "raspberry-pi": "arm-64-linux", "raspberry-pi-4": "arm-64-linux", "raspberry-pi-5": "arm-64-linux-dotprod",
    "jetson": "arm-64-linux", "android": "arm-64-android", "android-arm64": "arm-64-android",
    "macos": "arm-64-osx", "macos-arm64": "arm-64-osx", "apple-silicon": "arm-64-osx",
    "firmware": "arm-64-noos", "bare-metal": "arm-64-noos", "browser": "wasm", "web": "wasm", "webassembly": "wasm",
}  # fmt: skip
"""Common names -> targets. A Raspberry Pi 5 has the dot product, 3 and 4 do not; all need a 64-bit system."""


def parse(name: str) -> Target:
    """The target of that name or alias; `host` resolves to this machine's. Raises SmallcnnError for an unknown name."""
    plain = ALIASES.get(name.lower().replace("_", "-"), name)
    if plain == "host":
        return host()
    for platform, row in _PLATFORMS.items():
        levels = {f"{platform}-{level}": level for level in row.levels} | {platform: row.levels[0]}
        if plain in levels:
            return _target(platform, levels[plain])
    raise SmallcnnError(f"no target {name!r}; {closest(plain, ['host', *ALIASES, *names()])}")


def names() -> tuple[str, ...]:
    """Every target with its explicit level."""
    return tuple(_full(platform, level) for platform, row in _PLATFORMS.items() for level in row.levels)


def host() -> Target:
    """The target for this machine at its best level. Raises SmallcnnError if none fits, MissingExtra without Halide."""
    require("compiling", "compile", "halide", "ziglang")
    import halide

    target = halide.get_host_target()
    platform = "-".join(target.to_string().split("-")[:3])
    for level, feature in _BEST_FIRST.items():
        has = feature is None or target.has_feature(getattr(halide.TargetFeature, feature))
        if has and platform in _PLATFORMS and level in _PLATFORMS[platform].levels:
            return _target(platform, level)
    raise SmallcnnError(f"cannot compile for this machine ({platform}); targets: {', '.join(_PLATFORMS)}")


def runs_here(target: Target) -> bool:
    """Whether the platform of this machine can load files for `target`."""
    here = host()
    levels = [level for level in reversed(_BEST_FIRST) if level in _PLATFORMS[here.platform].levels]
    if target.level not in levels:
        return False
    return target.platform == here.platform and levels.index(target.level) <= levels.index(here.level)


def _target(platform: str, level: str) -> Target:
    row, cpu = _PLATFORMS[platform], _LEVELS[level]
    return Target(
        name=_full(platform, level),
        platform=platform,
        level=level,
        halide="-".join((row.halide, *cpu.halide, _KERNEL_FEATURES)),
        triple=row.triple,
        features=cpu.features,
        vector=cpu.vector,
        registers=cpu.registers,
        suffixes=row.suffixes,
    )


def _full(platform: str, level: str) -> str:
    return platform if level in ("neon", "simd128") else f"{platform}-{level}"
