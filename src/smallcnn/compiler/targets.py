"""Compilation targets: a platform and, on x86 and ARM, a level of vector instructions.

host                        this machine, with the best level it has
x86-64-linux                as x86-64-linux-avx2; also -sse41, -avxvnni, -avx512, -vnni; the same for x86-64-windows
arm-64-linux                any 64-bit ARM; -dotprod for ARMv8.2's dot product; also arm-64-android, arm-64-osx
arm-64-noos                 firmware: no threads, no operating system
wasm                        WebAssembly with 128-bit vectors

`ALIASES` has common names for them: raspberry-pi, android, windows, macos, browser.
"""

from dataclasses import dataclass

from smallcnn.compiler.arithmetic import Dots, Machine
from smallcnn.errors import SmallcnnError, closest, require
from smallcnn.system.cpu import cpu_flags

_KERNEL_FEATURES = "no_runtime-no_asserts-no_bounds_query-user_context"


@dataclass(frozen=True)
class Target:
    """One platform and level, as each tool names it.

    `level` names the vector instructions; `halide` is Halide's target string for kernels; `dot` and `dots` are those of
    `Machine`; `triple` is clang's target and `cpu` its flag for the level's instructions, if any; `features` is what
    the CPU must have, as native/cpu.h spells it. `vector` is the floats per vector register, `registers` the number of
    registers. `suffixes` are the file kinds that can be written, the default first.
    """

    name: str
    platform: str
    level: str
    halide: str
    dot: int
    dots: Dots | None
    triple: str
    cpu: tuple[str, ...]
    features: tuple[str, ...]
    vector: int
    registers: int
    suffixes: tuple[str, ...]

    @property
    def machine(self) -> Machine:
        """The machine that kernels are compiled for."""
        return Machine(self.vector, self.registers, self.halide, self.dot, self.dots)


@dataclass(frozen=True)
class _Platform:
    halide: str
    triple: str
    suffixes: tuple[str, ...]
    levels: tuple[str, ...]  # the first is the default


@dataclass(frozen=True)
class _Level:
    """`features` has one name for everything Halide's CPU choice for this level implies (haswell for avx2: also
    BMI, LZCNT, MOVBE; skylake-avx512 for avx512); `cpu` is clang's flag for it. `dot` is that of `Machine`; `dots` is
    LLVM's CPU and features for dot products of bytes, where Halide's choice would imply more than the level."""

    halide: tuple[str, ...]
    features: tuple[str, ...]
    vector: int
    registers: int
    dot: int = 2
    dots: tuple[str, str] | None = None
    cpu: tuple[str, ...] = ()


_AVX2 = ("sse41", "avx", "avx2", "fma", "f16c")
_AVX512 = (*_AVX2, "avx512", "avx512_skylake")
_DOTS = (*_AVX512, "avx512_zen4")
"""The target whose dot products Halide makes; they also come in vectors of AVX2."""
_HASWELL, _SKYLAKE = ("-march=haswell",), ("-march=skylake-avx512",)
_LEVELS = {
    "sse41": _Level(("sse41",), ("sse41",), 4, 16, cpu=("-msse4.1",)),
    "avx2": _Level(_AVX2, ("avx2",), 8, 16, cpu=_HASWELL),
    "avxvnni": _Level(_AVX2, ("avxvnni",), 8, 16, 4, ("haswell", "+avxvnni,+prefer-no-gather"), _HASWELL),
    "avx512": _Level(_AVX512, ("avx512",), 16, 32, cpu=_SKYLAKE),
    "vnni": _Level(
        _AVX512, ("vnni",), 16, 32, 4, ("cascadelake", "+avx512vbmi,+avx512vbmi2,+prefer-no-gather"), _SKYLAKE
    ),
    "neon": _Level((), (), 4, 32, 1),
    "dotprod": _Level(("arm_dot_prod",), ("dotprod",), 4, 32, 4),
    "simd128": _Level(("wasm_simd128",), (), 4, 16, cpu=("-msimd128",)),
}
_BEST_FIRST: dict[str, tuple[str, ...]] = {
    "vnni": ("AVX512_Zen4", "AVX512_Zen5", "AVX512_SapphireRapids"),
    "avx512": ("AVX512_Skylake",),
    "avxvnni": (),
    "avx2": ("AVX2",),
    "sse41": ("SSE41",),
    "dotprod": ("ARMDotProd",),
    "neon": (),
}
"""Halide's features that show a level, any of them, the best level first."""
_SSE41_FLAGS = frozenset({"ssse3", "cx16", "sse4_1"})
_AVX2_FLAGS = _SSE41_FLAGS | {"fma", "sse4_2", "movbe", "popcnt", "avx", "f16c", "bmi1", "avx2", "bmi2", "abm"}
_AVX512_FLAGS = _AVX2_FLAGS | {"avx512f", "avx512dq", "avx512cd", "avx512bw", "avx512vl"}
_FLAGS = {
    "vnni": _AVX512_FLAGS | {"avx512vbmi", "avx512_vbmi2", "avx512_vnni"},
    "avx512": _AVX512_FLAGS,
    "avxvnni": _AVX2_FLAGS | {"avx_vnni"},
    "avx2": _AVX2_FLAGS,
    "sse41": _SSE41_FLAGS,
}
"""What a level of x86 needs, as native/cpu.h, in the words of Linux."""
_X86, _ARM = ("avx2", "sse41", "avxvnni", "avx512", "vnni"), ("neon", "dotprod")
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


def of_halide(target: str) -> Target:
    """The first target that kernels are compiled for with this one of Halide's."""
    return next(one for one in map(parse, names()) if one.halide == target)


def names() -> tuple[str, ...]:
    """Every target with its explicit level."""
    return tuple(_full(platform, level) for platform, row in _PLATFORMS.items() for level in row.levels)


def host() -> Target:
    """The target for this machine at its best level. Raises SmallcnnError if none fits, MissingExtra without Halide."""
    require("compiling", "compile", "halide", "ziglang")
    import halide

    platform = "-".join(halide.get_host_target().to_string().split("-")[:3])
    levels = _PLATFORMS[platform].levels if platform in _PLATFORMS else ()
    best = next((level for level in _BEST_FIRST if level in levels and _is_here(level)), None)
    if best is None:
        raise SmallcnnError(f"cannot compile for this machine ({platform}); targets: {', '.join(_PLATFORMS)}")
    return _target(platform, best)


def runs_here(target: Target) -> bool:
    """Whether this machine can load files for `target`."""
    return target.platform == host().platform and target.level in _BEST_FIRST and _is_here(target.level)


def _is_here(level: str) -> bool:
    """Whether this machine has the instructions of a level of its platform.

    Linux decides on x86: Halide knows processors of AMD by their number, and a virtual machine may lack instructions
    that its processor has.
    """
    import halide

    if level in _FLAGS and (flags := cpu_flags()):
        return _FLAGS[level] <= flags
    if not _LEVELS[level].features:  # any of the platform
        return True
    here = halide.get_host_target()
    return any(here.has_feature(halide.TargetFeature.__members__[sign]) for sign in _BEST_FIRST[level])


def _target(platform: str, level: str) -> Target:
    row, chosen = _PLATFORMS[platform], _LEVELS[level]
    return Target(
        name=_full(platform, level),
        platform=platform,
        level=level,
        halide=_halide(row, chosen.halide),
        dot=chosen.dot,
        dots=Dots(_halide(row, _DOTS), *chosen.dots) if chosen.dots else None,
        triple=row.triple,
        cpu=chosen.cpu,
        features=chosen.features,
        vector=chosen.vector,
        registers=chosen.registers,
        suffixes=row.suffixes,
    )


def _halide(row: _Platform, features: tuple[str, ...]) -> str:
    return "-".join((row.halide, *features, _KERNEL_FEATURES))


def _full(platform: str, level: str) -> str:
    return platform if level in ("neon", "simd128") else f"{platform}-{level}"
