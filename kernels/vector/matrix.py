"""Matrix registers: Intel's AMX, or the same in vector code, so that what uses them can be tested on any machine.

Eight registers of 16 rows of 64 bytes. `multiply(c, a, b)` adds to 16 x 16 sums in float32 the products of 16 x 32 bf16
numbers a and 32 x 16 numbers b; a row of b holds two rows of the matrix, interleaved, so that pairs lie together.
"""

import ctypes
import platform

from llvmlite import ir

from resnet_ref.errors import DeviceError
from resnet_ref.kernels.vector.emit import F32, FLOAT, I8, I32, I64, VOID, Emitter, Value

SIDE = 16  # rows of a register, and float32 sums in one
DEPTH = 32  # bf16 numbers in a row
ROW = 64  # bytes
_REGISTERS = 8
_PERMISSION = (158, 0x1023, 18)  # arch_prctl(ARCH_REQ_XCOMP_PERM, XFEATURE_XTILEDATA)


class Amx:
    """Emits AMX's instructions."""

    def __init__(self, e: Emitter) -> None:
        self.e = e
        self._call("llvm.x86.ldtilecfg", _configuration(e))

    def zero(self, register: int) -> None:
        """All sums 0."""
        self._call("llvm.x86.tilezero", I8(register))

    def load(self, register: int, pointer: Value, step: "int | Value") -> None:
        """16 rows from memory, `step` bytes apart."""
        self._call("llvm.x86.tileloadd64", I8(register), pointer, self.e.whole(step))

    def store(self, register: int, pointer: Value, step: "int | Value") -> None:
        """16 rows to memory, `step` bytes apart."""
        self._call("llvm.x86.tilestored64", I8(register), pointer, self.e.whole(step))

    def multiply(self, c: int, a: int, b: int) -> None:
        """c += a @ b."""
        self._call("llvm.x86.tdpbf16ps", I8(c), I8(a), I8(b))

    def release(self) -> None:
        """Gives the registers back: a thread that holds them makes every switch of threads dearer."""
        self._call("llvm.x86.tilerelease")

    def _call(self, name: str, *arguments: Value) -> None:
        function = self.e.declare(name, VOID, [value.type for value in arguments])
        self.e.block.call(function, list(arguments))


class Emulated:
    """Emits vector code that does what `Amx` does, on registers that lie in the stack frame."""

    def __init__(self, e: Emitter) -> None:
        self.e = e
        self._memory = e.local(_REGISTERS * SIDE * ROW // (e.isa.lanes * FLOAT))

    def zero(self, register: int) -> None:
        """All sums 0."""
        place = self._register(register)
        self.e.loop(0, SIDE, lambda row: self.e.store(self.e.constant(0.0), self.e.at(place, self.e.mul(row, ROW))))

    def load(self, register: int, pointer: Value, step: "int | Value") -> None:
        """16 rows from memory, `step` bytes apart."""
        self._copy(self._register(register), ROW, pointer, step)

    def store(self, register: int, pointer: Value, step: "int | Value") -> None:
        """16 rows to memory, `step` bytes apart."""
        self._copy(pointer, step, self._register(register), ROW)

    def multiply(self, c: int, a: int, b: int) -> None:
        """c += a @ b, a pair of rows of b at a time."""
        e = self.e
        sums, left, right = (self._register(register) for register in (c, a, b))

        def row(m: Value) -> None:
            place = e.at(sums, e.mul(m, ROW))

            def pair(k: Value, carried: list[Value]) -> list[Value]:
                both = e.load(I32, e.at(left, e.mul(m, ROW), e.mul(k, 4)))
                rows = e.load(ir.VectorType(I32, SIDE), e.at(right, e.mul(k, ROW)))
                total = carried[0]
                for half in (_low, _high):
                    x = e.splat(e.block.bitcast(half(e, both, 1), F32))
                    total = e.multiply_add(x, e.block.bitcast(half(e, rows, SIDE), e.vector), total)
                return [total]

            (total,) = e.fold(SIDE, [e.load(e.vector, place)], pair)
            e.store(total, place)

        e.loop(0, SIDE, row)

    def release(self) -> None:
        """Nothing to give back."""

    def _register(self, number: int) -> Value:
        return self.e.at(self._memory, number * SIDE * ROW)

    def _copy(self, target: Value, target_step: "int | Value", source: Value, source_step: "int | Value") -> None:
        e = self.e

        def row(number: Value) -> None:
            e.store(
                e.load(e.vector, e.at(source, e.mul(number, source_step))), e.at(target, e.mul(number, target_step))
            )

        e.loop(0, SIDE, row)


def _constant(number: int, lanes: int) -> Value:
    return I32(number) if lanes == 1 else ir.Constant(ir.VectorType(I32, lanes), [number] * lanes)


def _low(e: Emitter, pair: Value, lanes: int) -> Value:
    """The first number of each pair of bf16, as float32's bits."""
    return e.block.shl(pair, _constant(16, lanes))


def _high(e: Emitter, pair: Value, lanes: int) -> Value:
    return e.block.and_(pair, _constant(-65536, lanes))


Registers = Amx | Emulated


def registers(e: Emitter) -> Registers:
    """The matrix registers of the emitter's instruction set."""
    return Amx(e) if e.isa.matrix == "amx" else Emulated(e)


def _configuration(e: Emitter) -> Value:
    """The address of the 64 bytes which say that all registers have all their rows."""
    content = bytearray(64)
    content[0] = 1
    content[16 : 16 + 2 * _REGISTERS : 2] = bytes([ROW] * _REGISTERS)
    content[48 : 48 + _REGISTERS] = bytes([SIDE] * _REGISTERS)
    name = "amx_configuration"
    known = e.module.globals.get(name)
    if known is None:
        kind = ir.ArrayType(I8, len(content))
        known = ir.GlobalVariable(e.module, kind, name)
        known.initializer = ir.Constant(kind, content)
        known.linkage, known.global_constant, known.align = "internal", True, 64
    return e.pointer(e.block.ptrtoint(known, I64))


def require_permission() -> None:
    """Linux lends the registers on request, once a process; DeviceError where it does not."""
    status = -1
    if platform.system() == "Linux":
        status = ctypes.CDLL(None, use_errno=True).syscall(*_PERMISSION)
    if status != 0:
        raise DeviceError(
            "this system does not lend AMX's registers to the process (arch_prctl failed); use precision='float32'"
        )
