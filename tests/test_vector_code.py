"""What LLVM makes of the emitted kernels: the register tile's innermost loop keeps its sums in registers.

Code for every instruction set can be looked at on any machine, though not run there.
"""

import re
from dataclasses import replace
from functools import cache
from typing import Any

import pytest

from resnet_ref.errors import DeviceError
from resnet_ref.kernels.library import emit_all, function_names
from resnet_ref.kernels.vector import isa as isas
from resnet_ref.kernels.vector.emit import Emitter, Layout
from resnet_ref.kernels.vector.isa import AVX2, AVX512, NAMES, NEON, PLAIN, Isa, available, isa_named
from resnet_ref.kernels.vector.objects import assembly
from resnet_ref.kernels.vector.tile import emit_tile, tile_name

# For each instruction set: a fused multiply-add on its widest registers; a read and a write of memory by these.
WIDE = {
    AVX512: (r"vfmadd\d+ps\s.*%zmm\d+$", r"^v(?!broadcast)\S+\s(?!.*\{1to).*\).*%zmm", r"^v\S+\s.*%zmm\d+, .*\)$"),
    AVX2: (r"vfmadd\d+ps\s.*%ymm\d+$", r"^v(?!broadcast)\S+\s.*\).*%ymm", r"^v\S+\s.*%ymm\d+, .*\)$"),
    NEON: (r"fmla\s+v\d+\.4s, v\d+\.4s, v\d+\.s\[\d\]", r"^ld\S*\s+q\d+", r"^st\S*\s+q\d+"),
}
TILES = [(isa, rows, v) for isa in WIDE for rows in range(1, isa.rows + 1) for v in range(1, isa.vectors + 1)]


@cache
def code(isa: Isa) -> str:
    return assembly(emit_all(isa))


def body(isa: Isa, function: str) -> list[str]:
    """A function's instructions and labels."""
    return instructions(code(isa), function)


def instructions(text: str, function: str) -> list[str]:
    """The same, of any assembly."""
    found = re.search(rf"^{function}:\n(.*?)^\.Lfunc_end", text, re.MULTILINE | re.DOTALL)
    assert found is not None, f"no {function}"
    lines = (line.partition("//")[0].strip().replace("\t", " ") for line in found[1].splitlines())
    return [line for line in lines if line and not line.startswith(("#", ".p2align", ".cfi"))]


def innermost_loops(lines: list[str]) -> list[list[str]]:
    """From each label to a jump back to it, with no other label between."""
    loops = []
    for start, line in enumerate(lines):
        if line.endswith(":"):
            rest = lines[start + 1 :]
            end = next((i for i, other in enumerate(rest) if other.endswith(":")), len(rest))
            jumps = [i for i, other in enumerate(rest[:end]) if re.match(rf"(j|b)\S* {re.escape(line[:-1])}$", other)]
            loops += [rest[: jumps[-1]]] if jumps else []
    return loops


def test_the_tiles_loops_are_the_innermost_ones():
    lines = ["f:", ".L1:", "add 1", ".L2:", "mul", "jl .L2", "jge .L3", "jmp .L1", ".L3:", "ret"]
    assert innermost_loops(lines) == [["mul"]]


@pytest.mark.parametrize(("isa", "rows", "vectors"), TILES, ids=lambda value: getattr(value, "name", str(value)))
def test_a_step_of_k_is_rows_times_vectors_multiply_adds_and_only_what_they_need_is_read_as_vectors(isa, rows, vectors):
    """What had no room in registers would be written to the stack, and read again.

    Where a lane may be a factor, a loop takes as many steps as a vector has lanes, and reads pixels as vectors, too.
    """
    multiply_add, read, written = (re.compile(pattern) for pattern in WIDE[isa])
    loops = [
        loop for loop in innermost_loops(body(isa, tile_name(rows, vectors))) if any(map(multiply_add.search, loop))
    ]
    steps = [isa.lanes, 1] if isa.by_lane else [1]
    assert [sum(bool(multiply_add.search(line)) for line in loop) for loop in loops] == [
        number * rows * vectors for number in steps
    ]
    for number, loop in zip(steps, loops, strict=True):
        assert [line for line in loop if written.search(line)] == []
        vector_reads = sum(1 + line.startswith("ldp") for line in loop if read.search(line))
        assert vector_reads == number * vectors + rows * (number > 1)


def neon_loop(rows: int, vectors: int, by_lane: bool) -> tuple[float, int]:
    """Of the innermost loop of a tile for NEON: instructions for each multiply-add, and vectors put on the stack."""
    e = Emitter(replace(NEON, by_lane=by_lane))
    emit_tile(e, rows, vectors)
    loops = [
        loop for loop in innermost_loops(instructions(assembly(e), tile_name(rows, vectors))) if "fmla" in str(loop)
    ]
    multiply_adds = sum("fmla" in line for line in loops[0])
    put = sum(bool(re.search(WIDE[NEON][2], line)) for line in loops[0])
    return (len(loops[0]) + 1) / multiply_adds, put  # 1: the jump back


def test_neons_tile_needs_the_fewest_instructions_for_a_multiply_add():
    """A tile with more sums leaves no registers for what is multiplied, or is read from the stack; a flatter or a
    narrower one loads more for each sum."""
    needed, stack = neon_loop(NEON.rows, NEON.vectors, by_lane=True)
    assert (needed, stack) == (1.25, 0)
    for rows, vectors in [(5, 5), (4, 6), (7, 3), (8, 3), (7, 4), (5, 4), (12, 2)]:
        assert neon_loop(rows, vectors, by_lane=True)[0] > needed
    for rows, vectors in [(6, 4), (5, 5), (4, 6), (9, 3), (8, 3), (7, 4)]:
        assert neon_loop(rows, vectors, by_lane=False)[0] > 1.2 * needed
    assert neon_loop(7, 4, by_lane=True)[1] > 0
    assert neon_loop(8, 3, by_lane=True)[1] > 0


def test_the_plain_instruction_set_multiplies_and_adds_apart():
    assert not re.search(r"\bv?f(n?m(add|sub)|ml[as])", code(PLAIN))
    assert re.search(r"\bv?f(n?m(add|sub)|ml[as])", code(AVX2)), "the pattern finds what there is"
    lines = body(PLAIN, tile_name(4, 2))
    assert len([line for line in lines if re.search(r"\bv?mulps|\bfmul ", line)]) == 8


@pytest.mark.parametrize("isa", [AVX512, AVX2, NEON, PLAIN], ids=lambda isa: isa.name)
def test_every_function_that_a_library_exports_is_emitted(isa):
    for name in function_names(isa):
        assert body(isa, name)


def test_the_fastest_instruction_set_is_taken_unless_one_is_named():
    assert isa_named(None) == available()[0]
    assert available()[-1] == PLAIN
    for isa in available():
        assert isa_named(isa.name) == isa


@pytest.mark.parametrize("name", ["sse2", "AVX2", "", 2, ["avx2"], b"avx2"])
def test_an_instruction_set_that_does_not_exist_is_refused_with_those_that_do(name: Any):
    with pytest.raises(DeviceError, match=f"isa must be None or one of {', '.join(NAMES)}; got "):
        isa_named(name)


def test_an_instruction_set_that_this_machine_has_not_is_refused_with_those_it_has(monkeypatch):
    monkeypatch.setattr(isas, "available", lambda: (AVX2, PLAIN))
    with pytest.raises(DeviceError, match='this machine has no "avx512", only avx2, plain; leave isa out'):
        isa_named("avx512")


def test_a_record_is_packed_in_the_order_of_its_names():
    layout = Layout("x", "y", "step")
    assert layout.pack(step=3, x=1, y=2) == [1, 2, 3]
    assert [layout.slot(name) for name in layout.names] == [0, 1, 2]


@pytest.mark.parametrize(("values", "wrong"), [({"x": 1}, "y"), ({"x": 1, "y": 2, "z": 3}, "z"), ({}, "x', 'y")])
def test_a_record_with_a_field_missing_or_unknown_is_refused(values, wrong):
    with pytest.raises(TypeError, match=rf"fields \['{wrong}'\] are missing or unknown"):
        Layout("x", "y").pack(**values)
