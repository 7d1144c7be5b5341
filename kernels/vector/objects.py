"""From emitted code to machine code, by LLVM."""

from collections.abc import Iterable
from dataclasses import dataclass
from itertools import count
from typing import Any

import llvmlite.binding as llvm

from resnet_ref.kernels.vector.emit import Emitter
from resnet_ref.kernels.vector.forking import new_lock
from resnet_ref.kernels.vector.isa import Isa

_names = count()
_lock = new_lock()  # LLVM's global state
_linker: list[Any] = []


@dataclass(frozen=True, eq=False)
class Library:
    """Linked functions; their addresses are valid as long as this lives."""

    isa: Isa
    code: Any

    def __getitem__(self, name: str) -> int:
        """A function's address."""
        return int(self.code[name])


def compile_object(e: Emitter) -> bytes:
    """The module as an object file for its instruction set."""
    machine, module = _prepared(e)
    return bytes(machine.emit_object(module))


def assembly(e: Emitter) -> str:
    """The module as assembly, to be looked at."""
    machine, module = _prepared(e)
    return str(machine.emit_assembly(module))


def _prepared(e: Emitter) -> tuple[Any, Any]:
    """LLVM's code generator for the instruction set, and the module in its hands.

    No optimiser passes run before: what is emitted is what is meant.
    """
    with _lock:
        llvm.initialize_all_targets()
        llvm.initialize_all_asmprinters()
    e.module.triple = e.isa.triple
    target = llvm.Target.from_triple(e.module.triple)
    # Large: what is linked in memory may lie far from what it calls. llvmlite's default is the same, but on Windows it
    # changes the triple.
    machine = target.create_target_machine(cpu=e.isa.cpu, features=e.isa.features, opt=3, codemodel="large", jit=True)
    module = llvm.parse_assembly(str(e.module))
    module.verify()
    return machine, module


def link(isa: Isa, data: bytes, names: Iterable[str]) -> Library:
    """An object file in this process's memory, ready to run."""
    with _lock:
        if not _linker:
            llvm.initialize_native_target()
            llvm.initialize_native_asmprinter()
            _linker.append(llvm.create_lljit_compiler())
        builder = llvm.JITLibraryBuilder().add_object_img(data).add_current_process()
        for name in names:
            builder.export_symbol(name)
        return Library(isa, builder.link(_linker[0], f"resnet_ref_{next(_names)}"))
