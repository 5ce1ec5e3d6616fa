"""Writes a program as one file. Only ziglang's clang and linkers are used; the system needs no compiler.

    .so .dll    loaded by smallcnn, or by anything that can call C; see native/smallcnn.h
    .wasm       a WebAssembly module without imports
    .o and .h   for programs, apps and firmware; names start with the file's stem, so several can be linked together

The table of steps is written as C (`_table`), compiled with native/runtime.c and the weights, and linked with the
kernels.
"""

import itertools
import json
import re
import tempfile
from collections.abc import Iterable, Mapping, Sequence
from importlib.resources import files
from pathlib import Path

from smallcnn.compiler import symbols, targets, zig
from smallcnn.compiler.program import Program
from smallcnn.compiler.targets import Target
from smallcnn.engines.seal import seal
from smallcnn.errors import SmallcnnError, require
from smallcnn.ir.types import NUMBERS, Tensor
from smallcnn.system.files import atomic

_SOURCES = ("smallcnn.h", "runtime.c", "buffer.h", "detector.h", "system.h", "cpu.h")
_SPACES = {"arena": "ARENA", "weights": "WEIGHTS", "input": "INPUT", "output": "OUTPUT"}
_TYPES = {"int8": (0, 8), "int32": (0, 32), "uint8": (1, 8), "float32": (2, 32)}  # code and bits
_RUNTIME = {"halide_malloc", "halide_free", "halide_error", "detector_limits"}
_C_LIBRARY = {"memcpy", "memset", "memmove", "bzero", "memset_pattern16", "__chkstk_darwin"}
"""Everything compiled code may import from its host; a system that does not need one does not import it."""
_KERNEL32 = """
    VirtualAlloc VirtualFree CreateThread WaitForSingleObject CloseHandle SwitchToThread
    QueryPerformanceCounter QueryPerformanceFrequency
    InitializeSRWLock AcquireSRWLockExclusive ReleaseSRWLockExclusive
    InitializeConditionVariable SleepConditionVariableSRW WakeAllConditionVariable
"""

_COMPILE = (
    *("-c", "-std=gnu23", "-O2", "-ffreestanding", "-nostdinc", "-fvisibility=hidden", "-fno-stack-protector"),
    *("-ffunction-sections", "-fdata-sections", "-fno-asynchronous-unwind-tables", "-fno-ident", "-Wall", "-Wextra"),
)
_COMPILE_FOR = {  # by the start of the triple
    "x86_64-linux": ("-fPIC",),
    "x86_64-pc-windows": ("-mno-stack-arg-probe",),
    "aarch64": ("-fPIC", "-mno-outline-atomics"),
    "arm64-apple": (),
    "wasm32": ("-mbulk-memory",),
}


def write(program: Program, out: Path | str, prefix: str | None = None) -> None:
    """Writes the file and, next to a .o, its C header. Names in a .o begin with `prefix`; default: the file's stem.

    Raises SmallcnnError if the target has no such file kind, FileError if it cannot be written, MissingExtra without
    ziglang.
    """
    require("compiling", "compile", "ziglang")
    out, target = Path(out), targets.parse(program.target)
    kind = out.suffix.lower()
    if kind not in target.suffixes:
        raise SmallcnnError(f"{out}: a file for {target.name} must end in {' or '.join(target.suffixes)}")
    prefix = prefix or _prefix(out.stem) if kind == ".o" else "smallcnn"
    with tempfile.TemporaryDirectory(prefix="smallcnn-") as name:
        content = _build(program, target, Path(name) / f"{out.stem}{kind}", prefix)
    if kind in (".so", ".dll"):
        content = seal(content, target.name)
    results = {out: content}
    if kind == ".o":
        results[out.with_suffix(".h")] = header(prefix).encode()
    for path, written in results.items():
        with atomic(path) as temporary:
            temporary.write_bytes(written)


def header(prefix: str = "smallcnn") -> str:
    """The C header of a compiled file."""
    return _source("smallcnn.h", prefix)


def _build(program: Program, target: Target, out: Path, prefix: str) -> bytes:
    """The content of the file linked for `out`, built in its own folder."""
    objects = program.objects
    names: dict[str, str] = {}
    if out.suffix in (".so", ".o"):  # the other linkers report missing names themselves
        seen = [symbols.external(content) for content in objects]
        defined = {name for table in seen for name, here in table.items() if here}
        called = {name for table in seen for name in table} | {f"{step.kernel}_argv" for step in program.steps}
        if missing := called - defined - _RUNTIME - _C_LIBRARY:
            raise ValueError(f"no object has {', '.join(sorted(missing))}, and a compiled file cannot call libraries")
        if out.suffix == ".o":
            names = {name: f"{prefix}__{name}" for name in defined | _RUNTIME}  # none is one of the header's
            objects = tuple(symbols.rename(content, names) for content in objects)
    folder = out.parent / "parts"
    folder.mkdir()
    paths = [_put(folder / f"kernels{i}.o", content) for i, content in enumerate(objects)]
    paths.append(_compile_runtime(program, target, prefix, names, folder))
    _LINKERS[out.suffix](target, paths, out)
    return out.read_bytes()


def _compile_runtime(program: Program, target: Target, prefix: str, names: Mapping[str, str], folder: Path) -> Path:
    """native/runtime.c with this program's table and weights, as an object file."""
    for source in _SOURCES:
        _put(folder / source, _source(source, prefix).encode())
    _put(folder / "weights.bin", program.weights or b"\0")
    _put(folder / "network.h", _table(program, names).encode())
    flags = [f"-D{name}={names[name]}" for name in sorted(_RUNTIME & names.keys())]
    out = folder / "runtime.o"
    _clang(folder / "runtime.c", target, flags, out)
    return out


def compiled(source: str, target: Target, flags: Sequence[str] = ()) -> bytes:
    """The object file of C code that needs no headers but the compiler's own."""
    require("compiling", "compile", "ziglang")
    with tempfile.TemporaryDirectory(prefix="smallcnn-") as name:
        out = Path(name) / "source.o"
        _clang(_put(out.with_suffix(".c"), source.encode()), target, flags, out)
        return out.read_bytes()


def native(name: str) -> str:
    """A file from native/."""
    return (files("smallcnn.compiler") / "native" / name).read_text()


def _clang(source: Path, target: Target, flags: Sequence[str], out: Path) -> None:
    for_target = [flag for start, row in _COMPILE_FOR.items() if target.triple.startswith(start) for flag in row]
    flags = ["-target", target.triple, *_COMPILE, *for_target, *flags]
    zig.run("clang", *flags, "-isystem", zig.headers(), source, "-o", out)


def _table(program: Program, names: Mapping[str, str]) -> str:
    """network.h, as native/runtime.c expects it."""
    height, width, channels = program.input_shape
    buffers = [buffer for step in program.steps for buffer in step.buffers]
    kernels = {step.kernel: names.get(f"{step.kernel}_argv", f"{step.kernel}_argv") for step in program.steps}
    numbers = {
        "HEIGHT": height,
        "WIDTH": width,
        "CHANNELS": channels,
        "OUTPUTS": len(program.outputs),
        "ARENA": program.arena_bytes,
        "SCRATCH": program.scratch_bytes,
        "STEPS": len(program.steps),
        "BUFFERS": len(buffers),
        "MOST": program.most,
        "DIMENSIONS": sum(len(buffer.extents) for buffer in buffers),
    }
    lines = [f"#define NETWORK_{name} {value}" for name, value in numbers.items()]
    lines += [f"#define NETWORK_METADATA {_literal(json.dumps(program.metadata))}"]
    lines += [f"#define NETWORK_FEATURES {_literal(' '.join(program.features))}"]
    lines += ["_Alignas(64) static const unsigned char NETWORK_WEIGHTS[] = {", '#embed "weights.bin"', "};"]
    lines += [f"int {name}(void **);" for name in sorted(kernels.values())]
    lines += _array("dimension DIMENSIONS", (pair for b in buffers for pair in zip(b.extents, b.strides, strict=True)))
    spaces = (f"{_SPACES[buffer.space]} + {buffer.output}" for buffer in buffers)
    places = zip(buffers, spaces, strict=True)
    lines += _array("buffer BUFFERS", ((b.offset, space, *_TYPES[b.type], len(b.extents)) for b, space in places))
    lines += _array("output OUTPUTS", (_output(name, tensor) for name, tensor in program.outputs.items()))
    labels = [step.label for step in program.steps]
    starts = itertools.accumulate((len(label.encode()) + 1 for label in labels), initial=0)
    steps = ((s.kernel, len(s.buffers), -1 if s.split is None else s.split, s.grain) for s in program.steps)
    lines += [f"static const char LABELS[] = {_literal(chr(0).join(labels))};"]
    lines += _array(
        "step STEPS", ((kernels[kernel], start, *rest) for (kernel, *rest), start in zip(steps, starts, strict=False))
    )
    return "\n".join(lines) + "\n"


def _output(name: str, tensor: Tensor) -> tuple[object, ...]:
    shape = f"{{{', '.join(map(str, tensor.shape))}}}"
    scale, zero = (tensor.grid.scale[0], tensor.grid.zero[0]) if tensor.grid else (0.0, 0)
    return _literal(name), NUMBERS.index(tensor.number), len(tensor.shape), shape, zero, scale


def _array(name: str, rows: Iterable[Sequence[object]]) -> list[str]:
    return [f"static const struct {name}[] = {{", *(f"    {{{', '.join(map(str, row))}}}," for row in rows), "};"]


def _literal(text: str) -> str:
    """A C string literal."""
    plain = (chr(byte) if 32 <= byte < 127 and byte not in b'"\\?' else f"\\{byte:03o}" for byte in text.encode())
    return '"' + "".join(plain) + '"'


def _link_elf(target: Target, paths: list[Path], out: Path) -> None:
    """A shared object without dependencies: every process has a C library. Only Android's loader needs it named."""
    folder = paths[0].parent
    exports = _put(folder / "exports", b"{ global: smallcnn_*; local: *; };")
    flags = ["--gc-sections", "--strip-all", "-Bsymbolic", "-znoexecstack", "-zrelro", "-znow", "--hash-style=gnu"]
    if target.name.startswith("arm-64-android"):
        empty, stub = folder / "empty.o", folder / "libc.so"
        zig.run("clang", "-target", target.triple, "-c", _put(folder / "empty.c", b""), "-o", empty)
        zig.run("ld.lld", "-shared", "-soname", "libc.so", empty, "-o", stub)
        flags += ["-zmax-page-size=16384"]  # for its newer devices
        paths = [*paths, stub]
    zig.run("ld.lld", "-shared", f"--version-script={exports}", *flags, *paths, "-o", out)


def _link_dll(_: Target, paths: list[Path], out: Path) -> None:
    folder = paths[0].parent
    names = "\n".join(_KERNEL32.split())
    definition = _put(folder / "kernel32.def", f"LIBRARY kernel32.dll\nEXPORTS\n{names}\n".encode())
    kernel32 = folder / "kernel32.lib"
    zig.run("lib", "/machine:x64", f"/def:{definition}", f"/out:{kernel32}")
    exports = [f"/export:{name}" for name in _exports()]
    flags = [
        "/dll",
        "/noentry",
        "/nodefaultlib",
        "/machine:x64",
        "/opt:ref",
        "/Brepro",
        f"/implib:{folder / 'own.lib'}",
    ]
    zig.run("lld-link", *flags, *exports, *paths, kernel32, f"/out:{out}")


def _link_wasm(_: Target, paths: list[Path], out: Path) -> None:
    exports = [f"--export-if-defined={name}" for name in (*_exports(), "__heap_base")]
    flags = ["--no-entry", "--gc-sections", "--strip-all", "--stack-first", f"-zstack-size={1 << 20}"]
    zig.run("wasm-ld", *flags, *exports, *paths, "-o", out)


def _link_object(target: Target, paths: list[Path], out: Path) -> None:
    if target.name.startswith("arm-64-osx"):
        zig.run("cc", "-target", "aarch64-macos", "-r", *paths, "-o", out)
    else:
        zig.run("ld.lld", "-r", *paths, "-o", out)


_LINKERS = {".so": _link_elf, ".dll": _link_dll, ".wasm": _link_wasm, ".o": _link_object}


def _exports() -> list[str]:
    return sorted(set(re.findall(r"^[a-z].*?(smallcnn_\w+)\(", header(), re.MULTILINE)))


def _source(name: str, prefix: str) -> str:
    """A file from native/, with `prefix` on its names."""
    return native(name).replace("smallcnn_", f"{prefix}_").replace("SMALLCNN_", f"{prefix.upper()}_")


def check_prefix(prefix: str | None, out: Path) -> None:
    """Raises SmallcnnError if names in the file `out` cannot start with `prefix`."""
    if prefix is None:
        return
    if out.suffix.lower() != ".o":
        raise SmallcnnError(f"{out}: a prefix applies only to .o files; names in other files begin with smallcnn_")
    if not re.fullmatch(r"[A-Za-z][A-Za-z0-9_]*", prefix) or "__" in prefix:
        raise SmallcnnError(f"{prefix!r} cannot begin names in C: letters, digits and single _, a letter first")


def _prefix(name: str) -> str:
    """`name` as a prefix for C names."""
    word = re.sub(r"[^a-z0-9]+", "_", name.lower()).strip("_")
    return word if word[:1].isalpha() else f"net_{word}"


def _put(path: Path, content: bytes) -> Path:
    path.write_bytes(content)
    return path
