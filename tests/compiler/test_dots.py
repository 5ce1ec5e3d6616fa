"""Dot products of bytes: each level has its instruction, and nothing that another processor has besides.

The code is disassembled, so the levels that this processor lacks are tested too.
"""

import re
from dataclasses import replace

import pytest

hl = pytest.importorskip("halide")
pytest.importorskip("ziglang")

from disassembled import disassembly, instructions, needs_objdump  # noqa: E402
from smallcnn.compiler import build, gauges, retarget, targets  # noqa: E402
from smallcnn.compiler.arithmetic import Bytes  # noqa: E402
from smallcnn.compiler.specs import (  # noqa: E402
    Depthwise,
    Elementwise,
    Pointwise,
    Sink,
    Source,
    Tile,
    Window,
    Winograd,
)


def product(inputs, weights, group, lanes):
    """Sums of products of 4 pixels and 64 channels, `group` products at a time, saved as saturated bytes."""
    image, matrix = hl.ImageParam(inputs, 2, "image"), hl.ImageParam(weights, 3, "matrix")
    c, x, inner = hl.Var("c"), hl.Var("x"), hl.Var("inner")
    sums, out = hl.Func("sums"), hl.Func("out")
    k = hl.RDom([(0, group), (0, 64 // group)], "k")
    value, weight = image[k.x + group * k.y, x], matrix[k.x, c, k.y]
    sums[c, x] = hl.i32(0)
    sums[c, x] += hl.i32(value) * hl.i32(weight)
    out[c, x] = hl.u8_sat(hl.i32(hl.round(hl.f32(sums[c, x]) * hl.f32(0.01))))
    matrix.dim(0).set_min(0).set_extent(group).set_stride(1)
    matrix.dim(1).set_min(0).set_stride(group)
    image.dim(0).set_min(0)
    out.output_buffer().dim(0).set_bounds(0, 64)
    out.output_buffer().dim(1).set_bounds(0, 4)
    out.vectorize(c, lanes).unroll(x)
    sums.compute_root().vectorize(c, lanes)
    step = sums.update().split(c, c, inner, lanes).reorder(k.x, inner, x, c, k.y)
    step.unroll(x).atomic().vectorize(k.x, group).vectorize(inner, lanes)
    return out, [image, matrix]


def disassembled(name, inputs, weights, group, folder):
    target = targets.parse(name)
    out, operands = product(inputs, weights, group, target.vector)
    path = folder / "kernel.o"
    if target.dots:
        out.compile_to_llvm_assembly(str(path), operands, "kernel", hl.Target(target.dots.target))
        path.write_bytes(retarget.to_object(path.read_text(), target.dots))
    else:
        out.compile_to_object(str(path), operands, "kernel", hl.Target(target.halide))
    return disassembly(path, name)


U8, I8, I16 = (hl.UInt(8), hl.Int(8), hl.Int(16))


@needs_objdump
@pytest.mark.parametrize(
    ("target", "inputs", "weights", "group", "instruction", "register"),
    [
        ("x86-64-linux-vnni", U8, I8, 4, "vpdpbusd", "zmm"),
        ("x86-64-windows-vnni", U8, I8, 4, "vpdpbusd", "zmm"),
        ("x86-64-linux-avxvnni", U8, I8, 4, "vpdpbusd", "ymm"),
        ("x86-64-windows-avxvnni", U8, I8, 4, "vpdpbusd", "ymm"),
        ("x86-64-linux-avx512", I16, I8, 2, "vpmaddwd", "zmm"),
        ("x86-64-linux-avx2", I16, I8, 2, "vpmaddwd", "ymm"),
        ("x86-64-linux-sse41", I16, I8, 2, "pmaddwd", "xmm"),
        ("arm-64-linux-dotprod", I8, I8, 4, "sdot", "v"),
        ("arm-64-linux-dotprod", U8, U8, 4, "udot", "v"),
        ("arm-64-linux", I16, I8, 1, "smlal", "v"),
        ("wasm", I16, I8, 2, "i32x4.dot_i16x8_s", ""),
    ],
)
def test_each_level_has_its_instruction(target, inputs, weights, group, instruction, register, tmp_path):
    text = disassembled(target, inputs, weights, group, tmp_path)
    found = [line for line in text.splitlines() if re.search(rf"\s{re.escape(instruction)}2?\s*", line + " ")]
    assert found, text
    assert all(register in line for line in found)


@needs_objdump
@pytest.mark.parametrize("system", ["linux", "windows"])
def test_avxvnni_has_no_registers_of_avx512(system, tmp_path):
    text = disassembled(f"x86-64-{system}-avxvnni", U8, I8, 4, tmp_path)
    assert not re.search(r"zmm|[xy]mm(1[6-9]|2\d|3[01])|%k\d", text)


@needs_objdump
@pytest.mark.parametrize("level", ["avxvnni", "vnni"])
def test_bytes_of_pixels_are_broadcast_as_they_are_loaded(level, tmp_path):
    found = instructions(disassembled(f"x86-64-linux-{level}", U8, I8, 4, tmp_path))
    assert "vpbroadcastd" in found
    assert not {"vpmaddwd", "vpmovzxbw", "vpshufb", "vpermd"} & set(found)


def test_code_for_another_processor_is_refused(tmp_path):
    """What the processor lacks cannot come out: LLVM stops."""
    target = targets.parse("x86-64-linux-vnni")
    out, operands = product(U8, I8, 4, target.vector)
    path = tmp_path / "kernel.ll"
    out.compile_to_llvm_assembly(str(path), operands, "kernel", hl.Target(target.dots.target))
    with pytest.raises(RuntimeError):
        retarget.to_object(path.read_text(), replace(target.dots, cpu="haswell", features=""))


def test_code_without_a_target_is_an_error():
    with pytest.raises(ValueError, match="names no target"):
        retarget.to_object("define void @f() { ret void }")


def kernels():
    """Convolutions of bytes, as the compiler makes them."""
    end = (Elementwise("requantize"),)
    window = Window(14, 14, 14, 14, (3, 3), (1, 1), (1, 1), (1, 1))
    sink = Sink(64, 64, end, number="uint8")
    return {
        "pointwise": Pointwise(Source(64, 64), sink, Tile(4, 2), Bytes(3)),
        "depthwise": Depthwise(window, 64, sink, 4, bytes=Bytes(3)),
        "winograd": Winograd(window, Source(64, 64), sink, Tile(4, 2, 4, widened=True, side=2), 14, Bytes(3)),
    }


@needs_objdump
@pytest.mark.parametrize("kernel", ["pointwise", "depthwise"])
@pytest.mark.parametrize("level", ["vnni", "avxvnni"])
def test_weights_with_a_zero_are_multiplied_as_bytes(kernel, level, tmp_path):
    target, spec = targets.parse(f"x86-64-linux-{level}"), replace(kernels()[kernel], bytes=Bytes(3, weight_zero=-9))
    (tmp_path / "kernel.o").write_bytes(build.compile_kernel(spec, target.machine))
    code = disassembly(tmp_path / "kernel.o", target.name)
    assert "vpdpbusd" in code
    assert "vpmaddwd" not in code
    assert ("vpsadbw" in code) == (kernel == "pointwise")


@needs_objdump
@pytest.mark.parametrize("kernel", ["pointwise", "depthwise"])
@pytest.mark.parametrize(
    ("target", "instruction", "never"),
    [
        ("x86-64-linux-vnni", "vpdpbusd", "vpmaddwd"),
        ("x86-64-linux-avxvnni", "vpdpbusd", "vpmaddwd"),
        ("x86-64-linux-avx512", "vpmaddwd", "vpmulld"),
        ("x86-64-linux-avx2", "vpmaddwd", "vpmulld"),
        ("x86-64-linux-sse41", "pmaddwd", "pmulld"),
        ("arm-64-linux-dotprod", "sdot", "smlal"),
        ("arm-64-linux", "smlal", "mla"),
        ("wasm", "i32x4.dot_i16x8_s", "i32x4.mul"),
    ],
)
def test_kernels_have_the_instruction_of_their_level(kernel, target, instruction, never, tmp_path):
    check_kernel(kernel, target, instruction, never, tmp_path)


@needs_objdump
@pytest.mark.parametrize(
    ("target", "instruction", "never"),
    [
        ("x86-64-linux-avx512", "vpmaddwd", "vpmulld"),
        ("x86-64-linux-avx2", "vpmaddwd", "vpmulld"),
        ("x86-64-linux-sse41", "pmaddwd", "pmulld"),
    ],
)
def test_minimal_filtering_multiplies_pairs(target, instruction, never, tmp_path):
    check_kernel("winograd", target, instruction, never, tmp_path)


def check_kernel(kernel, target, instruction, never, tmp_path):
    content = build.compile_kernel(kernels()[kernel], targets.parse(target).machine)
    (tmp_path / "kernel.o").write_bytes(content)
    found = instructions(disassembly(tmp_path / "kernel.o", target))
    assert instruction in {name.removesuffix("2") for name in found}
    assert never not in found


@needs_objdump
@pytest.mark.parametrize("widened", [False, True])
@pytest.mark.parametrize("tile", [(2, 4), (3, 3), (4, 2), (12, 1)])
def test_sums_of_pairs_stay_in_registers(tile, widened, tmp_path):
    """At unlucky addresses, a loop whose sums go through the stack takes twice its time."""
    machine = targets.parse("x86-64-linux-avx2").machine
    sink = Sink(128, 128, (Elementwise("requantize"),), number="uint8")
    spec = Pointwise(Source(64, 64), sink, Tile(*tile, unroll=4, widened=widened), Bytes(3))
    (tmp_path / "kernel.o").write_bytes(next(iter(build.build([spec], machine, 1).objects.values())))
    loop = innermost(disassembly(tmp_path / "kernel.o", "x86-64-linux-avx2"), 4 * tile[0] * tile[1])
    assert not [line for line in loop if re.search(r"vmov\w+\s+%ymm\d+, .*%rsp", line)]
    assert bool([line for line in loop if "vpmovsxbw" in line]) is not widened


@needs_objdump
@pytest.mark.parametrize("bytes", [None, Bytes(3)], ids=["floats", "bytes"])
@pytest.mark.parametrize("level", ["sse41", "avx2", "avx512", "vnni"])
def test_weights_are_fetched_ahead(level, bytes, tmp_path):
    """Each line of them once, from where the next vectors lie; no sum goes to the stack for it."""
    target = targets.parse(f"x86-64-linux-{level}")
    end = Elementwise("requantize") if bytes else Elementwise("relu6")
    sink = Sink(192, 192, (end,), number="uint8" if bytes else "float32")
    vectors = 2 if bytes else 3  # 4 x 3 floats take all registers of AVX2
    lines = {}
    for ahead in (False, True):
        spec = Pointwise(Source(256, 256), sink, Tile(4, vectors, unroll=4, ahead=ahead), bytes)
        (tmp_path / "kernel.o").write_bytes(build.compile_kernel(spec, target.machine))
        lines[ahead] = disassembly(tmp_path / "kernel.o", target.name).splitlines()
    fetched = [re.search(r"prefetcht1\s+(-?\d*)\(", line) for line in lines[True] if "prefetch" in line]
    places = sorted(int(found[1] or 0) for found in fetched)
    size = 1 if bytes else 4
    terms = 4 * (target.machine.dot if bytes else 1)
    read = terms * target.vector * size  # of a vector's weights, in one turn of the loop
    expected = [vector * 256 * target.vector * size + line for vector in range(vectors) for line in range(0, read, 64)]
    assert [place - places[0] for place in places] == expected
    assert not [line for line in lines[False] if "prefetch" in line]
    stack = [sum(bool(re.search(r"[xyz]mm.*%rsp", line)) for line in found) for found in lines.values()]
    assert stack[1] <= stack[0]


@needs_objdump
@pytest.mark.parametrize("level", ["sse41", "avx2", "avx512"])
def test_gauges_keep_their_sums_in_registers(level, tmp_path):
    """A sum on the stack may lie across two pages: the machine would be measured at a third of its rate."""
    target = f"x86-64-linux-{level}"
    for content in gauges.throughput(targets.parse(target)).program.objects:
        (tmp_path / "gauge.o").write_bytes(content)
        text = disassembly(tmp_path / "gauge.o", target)
        assert not re.findall(r"^.*[xyz]mm.*%[re][sb]p.*$", text, re.MULTILINE)


def innermost(text, products):
    """The lines of the loop without another branch that has this many products of pairs."""
    lines = [line for line in text.splitlines() if re.match(r"\s*[0-9a-f]+:", line)]
    place = {int(line.split(":")[0], 16): i for i, line in enumerate(lines)}
    for end, line in enumerate(lines):
        jump = re.search(r"\sj[a-z]+\s+0x([0-9a-f]+)", line)
        start = place.get(int(jump[1], 16), end) if jump else end
        body = lines[start:end]
        if sum("vpmaddwd" in one for one in body) == products and not any(
            re.search(r"\sj[a-z]+\s", one) for one in body
        ):
            return body
    raise AssertionError(f"no loop of {products} products")
