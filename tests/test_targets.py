"""Machine code of each system: what it asks for, how it is called, and that it computes the same.

Code for macOS and Windows is compiled here and, where the architecture is this machine's, run here (see foreign.py).
"""

import ctypes
import re
import runpy
import struct
from dataclasses import replace
from functools import cache, partial
from typing import Any

import llvmlite.binding as llvm
import numpy as np
import pytest
from accuracy import error
from conftest import TINY
from foreign import TRIPLES, Code, assembled, foreign, guard, library, runnable
from planned import Array

from resnet_ref import resnet_v1
from resnet_ref.kernels.conv2d.choice import Way, by_model
from resnet_ref.kernels.library import emit_all
from resnet_ref.kernels.library import library as own_library
from resnet_ref.kernels.vector import isa as isas
from resnet_ref.kernels.vector import team
from resnet_ref.kernels.vector.emit import I64, POINTER, VOID, Emitter
from resnet_ref.kernels.vector.isa import AMX, AVX2, AVX512, NEON, PLAIN, Isa, available, isa_named
from resnet_ref.kernels.vector.objects import Library, assembly, compile_object
from resnet_ref.kernels.vector.step import Target
from resnet_ref.network import Network
from resnet_ref.plan.plan import RESULT, Plan

# What the C library, or Windows' ntdll and kernel32, lend. `__bzero` and `bzero` are macOS' way to write zeros.
LENT = {
    "linux": {"memcpy", "memset", "sched_yield"},
    "darwin": {"_memcpy", "_memset", "_bzero", "___bzero", "_sched_yield"},
    "windows": {"memcpy", "memset", "SwitchToThread", "__chkstk"},
}
YIELDS = {"linux": "sched_yield", "darwin": "_sched_yield", "windows": "SwitchToThread"}
ISAS_OF = {"x86_64": (AVX512, AVX2, AMX, PLAIN), "aarch64": (NEON, PLAIN)}
EACH = [
    (system, replace(isa, triple=triple))
    for system, triples in TRIPLES.items()
    for architecture, triple in triples.items()
    for isa in ISAS_OF[architecture]
]
# Of old macOS LLVM knows no function for zeros.
EACH += [("darwin", replace(PLAIN, triple=triple)) for triple in ("x86_64-apple-darwin", "arm64-apple-darwin")]
RUN = [(isa, system) for isa in available() for system in runnable(isa.architecture)]
named = partial(pytest.mark.parametrize, ids=lambda value: getattr(value, "target", str(value)))
IMAGES = (np.random.default_rng(3).standard_normal((5, 29, 26, 3)) * 60).astype(np.float32)
DESCRIBE = Network.from_json(TINY).describe
V3 = isas._V3
V4 = isas._NEEDS[AVX512]


def undefined(data: bytes) -> set[str]:
    """The names that an object file (ELF or Mach-O, 64 bits) asks for."""

    def name(start: int) -> str:
        return data[start : data.index(0, start)].decode()

    if data[:4] == b"\x7fELF":
        (first,), (size, count) = struct.unpack_from("<Q", data, 0x28), struct.unpack_from("<HH", data, 0x3A)
        sections = [struct.unpack_from("<IIQQQQII", data, first + i * size) for i in range(count)]
        (symbols,) = (section for section in sections if section[1] == 2)
        texts = sections[symbols[6]][4]
        entries = struct.iter_unpack("<IBBHQQ", data[symbols[4] : symbols[4] + symbols[5]])
        return {name(texts + text) for text, _, _, section, _, _ in entries if text and section == 0}
    assert data[:4] == b"\xcf\xfa\xed\xfe"
    place, found = 32, set()
    for _ in range(struct.unpack_from("<I", data, 16)[0]):
        kind, size, first, count, texts = struct.unpack_from("<5I", data, place)
        if kind == 2:
            entries = struct.iter_unpack("<IBBHQ", data[first : first + 16 * count])
            found |= {name(texts + text) for text, flags, *_ in entries if flags == 1}
        place += size
    return found


@named(("system", "isa"), EACH)
def test_code_asks_only_for_what_its_system_has(system: str, isa: Isa) -> None:
    asked = undefined(compile_object(emit_all(isa)))
    assert asked <= LENT[system]
    assert YIELDS[system] in asked


def test_a_name_that_no_system_has_is_seen_in_each_format() -> None:
    for system, name in (("linux", "nobodys"), ("darwin", "_nobodys"), ("windows", "nobodys")):
        e = Emitter(foreign(AVX2, system))
        with e.function("calls", []):
            e.block.call(e.declare("nobodys", VOID, []), [])
        assert undefined(compile_object(e)) == {name}


@cache
def functions(isa: Isa) -> dict[str, str]:
    """Each function's assembly."""
    parts = re.split(r"^_?(\w+):.*\n", assembly(emit_all(isa)), flags=re.MULTILINE)
    return dict(zip(parts[1::2], parts[2::2], strict=True))


@pytest.mark.parametrize(("system", "first"), [("linux", "rdi"), ("darwin", "rdi"), ("windows", "rcx")])
@pytest.mark.parametrize("isa", [AVX512, AVX2], ids=lambda isa: isa.name)
def test_arguments_come_in_the_registers_of_the_systems_calls(system: str, first: str, isa: Isa) -> None:
    """publish(team) begins with a read of the team's record."""
    isa = replace(isa, triple=TRIPLES[system]["x86_64"])
    assert re.search(r"\((%\w+)\)", functions(isa)["publish"])[1] == f"%{first}"  # type: ignore[index]


@pytest.mark.parametrize("isa", [AVX512, AVX2, PLAIN], ids=lambda isa: isa.name)
def test_code_for_windows_saves_and_restores_the_vector_registers_that_are_its_callers(isa: Isa) -> None:
    """xmm6 .. xmm15; of wider registers of these numbers only this part is the caller's."""
    users = 0
    for body in functions(replace(isa, triple=TRIPLES["windows"]["x86_64"])).values():
        for number in range(6, 16):
            lines = [
                line.split("#")[0].strip() for line in body.splitlines() if re.search(rf"%[xyz]mm{number}\b", line)
            ]
            if lines:
                saved = re.fullmatch(rf"v?mov[au]ps\s+%xmm{number}, (\S+\(%r[bs]p\))", lines[0])
                assert saved, lines[0]
                assert re.fullmatch(rf"v?mov[au]ps\s+{re.escape(saved[1])}, %xmm{number}", lines[-1]), lines[-1]
                users += 1
    assert users > 50


@pytest.mark.parametrize("isa", [AVX512, AVX2, NEON, AMX, PLAIN], ids=lambda isa: isa.name)
def test_no_function_takes_or_gives_vectors_which_systems_pass_in_different_ways(isa: Isa) -> None:
    emitted = [function for function in emit_all(isa).module.functions if function.blocks]
    assert {argument.type for function in emitted for argument in function.args} <= {POINTER, I64}
    assert {function.ftype.return_type for function in emitted} == {VOID}


@pytest.fixture
def own_team(monkeypatch: pytest.MonkeyPatch) -> Any:
    """A team of its own: helpers stay in the code that they were started with."""
    monkeypatch.setattr(team, "_team", team._Team())
    yield
    team._team.dismiss()


@cache
def foreign_library(isa: Isa, system: str) -> Library:
    return library(isa, system)


@pytest.mark.usefixtures("own_team")
@pytest.mark.parametrize("threads", [1, 2])
@pytest.mark.parametrize("algorithm", ["auto", "fast"])
@named(("isa", "system"), RUN)
def test_a_network_computed_by_another_systems_code_gives_the_same_numbers(
    isa: Isa, system: str, algorithm: str, threads: int, tiny_variables: dict[str, Array]
) -> None:
    """Equal to this system's bit for bit, near the definition in float64, and no register of the caller's is lost."""
    theirs, code = foreign_library(isa, system), foreign_library(isa, system).code
    assert isinstance(code, Code)

    def run(used: Library) -> Array:
        target = Target(used, threads)
        return Plan(DESCRIBE, tiny_variables, target, IMAGES.shape, [RESULT], by_model(Way(algorithm)))(IMAGES)[RESULT]

    found = run(theirs)
    assert code.broken[0] == 0
    network = Network.from_json(TINY)
    where = {"scope": "tiny", "device": "definition", "dtype": "float64"}
    truth = resnet_v1.resnet_v1(IMAGES, network.blocks, 5, False, weights=tiny_variables, **where)[1]["predictions"]
    assert error(found, truth) <= 2e-6
    team._team.dismiss()
    np.testing.assert_array_equal(found, run(own_library(isa)))


@pytest.mark.skipif("windows" not in runnable(isa_named(None).architecture), reason="runs x86-64's assembly, on Linux")
def test_a_register_that_belongs_to_the_caller_and_is_not_given_back_is_counted() -> None:
    """Both halves of xmm7, and rsi; xmm5 and rcx are nobody's."""
    broken = (ctypes.c_int64 * 1)()
    spoil = ".globl spoil\nspoil: pcmpeqd %xmm7, %xmm7; pcmpeqd %xmm5, %xmm5; xor %esi, %esi; xor %ecx, %ecx; ret"
    address = assembled(spoil, ["spoil"])["spoil"]
    run = assembled(guard("run", address, broken), ["run"])["run"]
    ctypes.CFUNCTYPE(None, ctypes.c_int64)(run)(0)
    assert broken[0] == 3


MACHINES = [
    ("x86_64-unknown-linux-gnu", V4, ["avx512", "avx2", "plain"]),
    ("x86_64-pc-linux-gnu", {*V4} - {"avx512vl"}, ["avx2", "plain"]),
    ("x86_64-unknown-linux-gnu", {*V4} - {"movbe"}, ["plain"]),
    ("x86_64-unknown-linux-gnu", {"avx", "sse2"}, ["plain"]),
    ("x86_64-pc-windows-msvc", V4, ["avx512", "avx2", "plain"]),
    ("x86_64-apple-darwin22.6.0", V3, ["avx2", "plain"]),
    ("aarch64-unknown-linux-gnu", {"neon"}, ["neon", "plain"]),
    ("arm64-apple-darwin22.6.0", set(), ["neon", "plain"]),
    ("aarch64-pc-windows-msvc", set(), ["neon", "plain"]),
    ("riscv64-unknown-linux-gnu", set(), ["plain"]),
]


@pytest.mark.parametrize(("triple", "features", "names"), MACHINES)
def test_a_machine_has_what_its_architecture_and_all_the_features_needed_allow(
    monkeypatch: pytest.MonkeyPatch, triple: str, features: Any, names: list[str]
) -> None:
    """And each has the process' own triple, Windows' with ELF. On macOS LLVM names no features of an ARM."""
    monkeypatch.setattr(llvm, "get_process_triple", lambda: triple)
    monkeypatch.setattr(llvm, "get_host_cpu_features", lambda: dict.fromkeys(features, True))
    there = runpy.run_path(isas.__file__)
    assert [isa.name for isa in there["available"]()] == names
    own = f"{triple}-elf" if "windows" in triple else triple
    assert {isa.triple for isa in there["available"]()} == {own}
    others = {there[name].triple for name in ("AVX512", "AVX2", "AMX", "NEON")} - {own}
    assert others <= {"x86_64-unknown-linux-gnu", "aarch64-unknown-linux-gnu"}
