"""Machine code for other systems, run on this one: the CPU is the same, and what the code asks for is brought to it.

What is compiled for macOS calls functions as Linux does. What is compiled for Windows does not: calls go through a few
lines of assembly, which also look whether it gives back the registers that belong to its caller.
"""

import ctypes
import sys
from collections.abc import Iterable, Mapping
from dataclasses import replace
from typing import Any

import llvmlite.binding as llvm

from resnet_ref.kernels.library import emit_all, function_names
from resnet_ref.kernels.vector.isa import Isa
from resnet_ref.kernels.vector.objects import Library, compile_object

TRIPLES = {
    "linux": {"x86_64": "x86_64-unknown-linux-gnu", "aarch64": "aarch64-unknown-linux-gnu"},
    "darwin": {"x86_64": "x86_64-apple-darwin22.6.0", "aarch64": "arm64-apple-darwin22.6.0"},
    "windows": {"x86_64": "x86_64-pc-windows-msvc-elf"},
}
# Whose code this machine can run. (Only Linux' own C library lends what the others' would.)
RUNNABLE = {"x86_64": ("darwin", "windows"), "aarch64": ("darwin",)}
CALLED = {"run": 3, "publish": 1, "lead": 1, "attend": 3}  # by Python, with so many arguments
XMM, GENERAL = range(6, 16), ("rbx", "rdi", "rsi", "r12", "r13", "r14", "r15")  # a caller's on Windows
_held: list[Any] = []  # what is linked stays


def runnable(architecture: str) -> tuple[str, ...]:
    """The other systems whose code can be run here."""
    return RUNNABLE.get(architecture, ()) if sys.platform == "linux" else ()


def foreign(isa: Isa, system: str) -> Isa:
    """The instruction set as that system has it."""
    return replace(isa, triple=TRIPLES[system][isa.architecture])


class Code(dict[str, int]):
    """Functions' addresses. broken: how many registers of its caller's Windows code has not given back, in halves."""

    def __init__(self, isa: Isa) -> None:
        self.broken = (ctypes.c_int64 * 1)()
        windows = isa.system == "windows"
        imports = assembled(_LENT, _LENT_NAMES) if windows else _libc()
        self.update(_linked(_machine(isa.triple), compile_object(emit_all(isa)), function_names(isa), imports))
        if windows:
            self.update(assembled("".join(guard(name, self[name], self.broken) for name in CALLED), CALLED))


def assembled(assembly: str, names: Iterable[str]) -> dict[str, int]:
    """This system's functions."""
    machine = _machine(llvm.get_process_triple())
    lines = "\n".join(f'module asm "{line.strip()}"' for line in assembly.splitlines())
    return _linked(machine, machine.emit_object(llvm.parse_assembly(lines)), names, {})


def _linked(machine: Any, code: bytes, names: Iterable[str], imports: Mapping[str, int]) -> dict[str, int]:
    """The functions of an object file, which finds nothing but the imports."""
    linker = llvm.create_lljit_compiler(machine)
    builder = llvm.JITLibraryBuilder().add_object_img(code)
    for name, address in imports.items():
        builder.import_symbol(name, address)
    for name in names:
        builder.export_symbol(name)
    found = builder.link(linker, f"foreign_{len(_held)}")
    _held.append((found, linker))
    return {name: found[name] for name in names}


def _machine(triple: str) -> Any:
    llvm.initialize_all_targets()
    llvm.initialize_all_asmprinters()
    llvm.initialize_native_asmparser()
    return llvm.Target.from_triple(triple).create_target_machine(codemodel="large", jit=True)


def library(isa: Isa, system: str) -> Library:
    """The kernels as compiled for that system, to be called on this one."""
    other = foreign(isa, system)
    return Library(other, Code(other))


def _libc() -> dict[str, int]:
    here = ctypes.CDLL(None)
    names = {"memcpy": "memcpy", "memset": "memset", "bzero": "bzero", "__bzero": "bzero", "sched_yield": "sched_yield"}
    return {name: ctypes.cast(getattr(here, mine), ctypes.c_void_p).value or 0 for name, mine in names.items()}


# What Windows' libraries have, called as they are called. All of what a call may change is changed.
_LENT_NAMES = ("memcpy", "memset", "SwitchToThread", "__chkstk")


_SPOIL = "; ".join(f"pcmpeqd %xmm{i}, %xmm{i}" for i in range(6))
_LENT = f"""
    .text
    .globl memcpy, memset, SwitchToThread, __chkstk
memcpy:
    push %rdi; push %rsi
    mov %rcx, %rax; mov %rcx, %rdi; mov %rdx, %rsi; mov %r8, %rcx
    rep movsb
    pop %rsi; pop %rdi
    {_SPOIL}
    ret
memset:
    push %rdi
    mov %rcx, %r9; mov %rcx, %rdi; mov %rdx, %rax; mov %r8, %rcx
    rep stosb
    pop %rdi
    mov %r9, %rax
    {_SPOIL}
    ret
SwitchToThread:
    mov $1, %eax
    {_SPOIL}
    ret
__chkstk:
    ret
"""


def guard(name: str, address: int, broken: Any) -> str:
    """The function as Linux calls it: arguments to Windows' registers, those of a caller's filled and compared."""
    fill = "\n".join(f"mov ${100 + i}, %rax; movq %rax, %xmm{i}; punpcklqdq %xmm{i}, %xmm{i}" for i in XMM)
    fill += "\n" + "\n".join(f"mov ${200 + i}, %{register}" for i, register in enumerate(GENERAL))
    checks = [f"cmp ${200 + i}, %{register}" for i, register in enumerate(GENERAL)]
    for i in XMM:
        checks += [f"movq %xmm{i}, %rax; cmp ${100 + i}, %rax"]
        checks += [f"movhlps %xmm{i}, %xmm0; movq %xmm0, %rax; cmp ${100 + i}, %rax"]
    count = "\n".join(f"{check}; je 1f; lock incq (%r11); 1:" for check in checks)
    kept = ("rbx", "r12", "r13", "r14", "r15")
    return f"""
    .text
    .globl {name}
{name}:
    push %rbp; mov %rsp, %rbp
    {"; ".join(f"push %{register}" for register in kept)}
    mov %rdx, %r8; mov %rdi, %rcx; mov %rsi, %rdx
    {fill}
    movabs ${address}, %rax
    sub $40, %rsp
    call *%rax
    movabs ${ctypes.addressof(broken)}, %r11
    {count}
    add $40, %rsp
    {"; ".join(f"pop %{register}" for register in reversed(kept))}
    pop %rbp
    ret
"""
