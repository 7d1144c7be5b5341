"""A small vocabulary for emitting kernels as LLVM code: vectors, loops that carry values, records of arguments.

A kernel's emitter is a Python function that runs once and leaves machine code behind: a Python `for` in it unrolls,
`Emitter.loop` and `Emitter.fold` make loops that run. Vectors are explicit, since LLVM's own vectoriser does not find
512-bit code for a convolution, and there is no fast-math: a sum is added in the order that is written.
"""

from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from types import SimpleNamespace
from typing import Any

import numpy as np
from llvmlite import ir

from resnet_ref.kernels.vector.isa import Isa

F32, F64 = ir.FloatType(), ir.DoubleType()
I8, I32, I64 = ir.IntType(8), ir.IntType(32), ir.IntType(64)
POINTER, VOID = ir.PointerType(), ir.VoidType()
FLOAT = 4  # bytes
LINE = 64  # bytes of a cache line: what memory and cores pass between them
Value = Any  # an ir.Value


class Layout:
    """The names of a record's 64-bit fields: packed by Python, read by a kernel."""

    def __init__(self, *names: str) -> None:
        self.names = names

    def __len__(self) -> int:
        return len(self.names)

    def pack(self, **values: int) -> list[int]:
        """The record; every field must be given, and no other."""
        if set(values) != set(self.names):
            raise TypeError(f"fields {sorted(set(values) ^ set(self.names))} are missing or unknown")
        return [int(values[name]) for name in self.names]

    def slot(self, name: str) -> int:
        """The field's position."""
        return self.names.index(name)


def float_bits(number: float) -> int:
    """A float32 as the integer that a record carries it in."""
    return int(np.float32(number).view(np.int32))


class Emitter:
    """Writes the functions of one module for one instruction set."""

    def __init__(self, isa: Isa) -> None:
        self.isa = isa
        self.module = ir.Module()
        self.vector = ir.VectorType(F32, isa.lanes)
        self.block: ir.IRBuilder = None

    @contextmanager
    def function(self, name: str, arguments: Sequence[Any]) -> Iterator[list[Value]]:
        """Inside, what is emitted is the body of `void name(arguments)`; yields the arguments."""
        function = ir.Function(self.module, ir.FunctionType(VOID, arguments), name)
        function.attributes.add("nounwind")
        self.block = ir.IRBuilder(function.append_basic_block("entry"))
        yield list(function.args)
        self.block.ret_void()

    def function_named(self, name: str) -> Value:
        """A function emitted before."""
        return self.module.globals[name]

    # Numbers and addresses. Pointer arithmetic counts bytes.

    def whole(self, value: "int | Value") -> Value:
        """A 64-bit integer constant (or the value itself)."""
        return I64(value) if isinstance(value, int) else value

    def at(self, pointer: Value, *offsets: "int | Value") -> Value:
        """pointer + offsets, in bytes."""
        for offset in offsets:
            if not (isinstance(offset, int) and offset == 0):
                pointer = self.block.gep(pointer, [self.whole(offset)], source_etype=I8)
        return pointer

    def add(self, a: Value, b: "int | Value") -> Value:
        """a + b, integers."""
        return self.block.add(a, self.whole(b))

    def sub(self, a: "int | Value", b: "int | Value") -> Value:
        """a - b, integers."""
        return self.block.sub(self.whole(a), self.whole(b))

    def mul(self, a: Value, b: "int | Value") -> Value:
        """a * b, integers."""
        return self.block.mul(a, self.whole(b))

    def divmod(self, a: Value, b: "int | Value") -> tuple[Value, Value]:
        """a // b and a % b of integers that are not negative."""
        return self.block.udiv(a, self.whole(b)), self.block.urem(a, self.whole(b))

    def least(self, a: Value, b: Value) -> Value:
        """The lesser of two integers."""
        return self.block.select(self.block.icmp_signed("<", a, b), a, b)

    def is_at_least(self, a: Value, b: "int | Value") -> Value:
        """1 where a >= b, else 0."""
        return self.block.zext(self.block.icmp_signed(">=", a, self.whole(b)), I64)

    def local(self, vectors: int) -> Value:
        """Room for vectors in the function's own stack frame."""
        room = self.block.alloca(ir.ArrayType(self.vector, vectors))
        room.align = self.isa.lanes * FLOAT
        return self.pointer(self.block.ptrtoint(room, I64))

    def record(self, pointer: Value, layout: Layout) -> SimpleNamespace:
        """A record's fields by name, as 64-bit integers."""
        return SimpleNamespace(
            **{name: self.load(I64, self.at(pointer, 8 * slot), 8) for slot, name in enumerate(layout.names)}
        )

    def pointer(self, address: Value) -> Value:
        """An address that a record carried."""
        return self.block.inttoptr(address, POINTER)

    def load(self, kind: Any, pointer: Value, align: int = FLOAT) -> Value:
        """One number, or one vector."""
        return self.block.load(pointer, typ=kind, align=align)

    def store(self, value: Value, pointer: Value, align: int = FLOAT) -> None:
        """Writes one number, or one vector."""
        self.block.store(value, pointer, align=align)

    def store_released(self, value: Value, pointer: Value) -> None:
        """Writes an integer, after all that was written before."""
        self.block.atomic_rmw("xchg", pointer, value, "release")

    def index(self, pointer: Value) -> Value:
        """An offset that a table holds as int32 and counts in floats, in bytes."""
        return self.mul(self.block.sext(self.load(I32, pointer), I64), FLOAT)

    # Vectors.

    def constant(self, number: float) -> Value:
        """A vector of one number."""
        return ir.Constant(self.vector, [number] * self.isa.lanes)

    def splat(self, number: Value) -> Value:
        """One number in every lane."""
        undefined = ir.Constant(ir.VectorType(number.type, self.isa.lanes), ir.Undefined)
        first = self.block.insert_element(undefined, number, I32(0))
        return self.block.shuffle_vector(first, undefined, ir.Constant(ir.VectorType(I32, self.isa.lanes), None))

    def splat_lane(self, x: Value, lane: int) -> Value:
        """One lane of a vector in every lane."""
        lanes = ir.Constant(ir.VectorType(I32, self.isa.lanes), [lane] * self.isa.lanes)
        return self.block.shuffle_vector(x, ir.Constant(self.vector, ir.Undefined), lanes)

    def splat_bits(self, bits: Value) -> Value:
        """What `float_bits` packed, in every lane."""
        return self.splat(self.block.bitcast(self.block.trunc(bits, I32), F32))

    def multiply_add(self, a: Value, b: Value, c: Value) -> Value:
        """a * b + c, vectors: one rounding where the instruction set fuses, else two."""
        if not self.isa.fused:
            return self.block.fadd(self.block.fmul(a, b), c)
        function = self.declare(f"llvm.fma.v{self.isa.lanes}f32", self.vector, [self.vector] * 3)
        return self.block.call(function, [a, b, c])

    def at_least(self, x: Value, low: Value) -> Value:
        """max(x, low), NaN left alone."""
        return self.block.select(self.block.fcmp_ordered(">", low, x), low, x)

    def at_most(self, x: Value, high: Value) -> Value:
        """min(x, high), NaN left alone."""
        return self.block.select(self.block.fcmp_ordered("<", high, x), high, x)

    def clamp(self, x: Value, low: Value, high: Value) -> Value:
        """min(max(x, low), high), NaN left alone."""
        return self.at_most(self.at_least(x, low), high)

    def prefetch(self, pointer: Value, level: int) -> None:
        """Asks for a cache line: level 3 into L1, 2 into L2."""
        function = self.declare("llvm.prefetch.p0", VOID, [POINTER, I32, I32, I32])
        self.block.call(function, [pointer, I32(0), I32(level), I32(1)])

    # Control.

    def fold(
        self,
        count: "int | Value",
        carried: Sequence[Value],
        body: Callable[[Value, list[Value]], Sequence[Value]],
        name: str = "loop",
    ) -> list[Value]:
        """Runs body(i, carried) -> carried for i = 0 .. count - 1, count >= 1; returns what the last one carried."""
        before = self.block.block
        head = self.block.append_basic_block(name)
        self.block.branch(head)
        self.block.position_at_end(head)
        i = self.block.phi(I64)
        i.add_incoming(I64(0), before)
        phis = [self.block.phi(value.type) for value in carried]
        for phi, value in zip(phis, carried, strict=True):
            phi.add_incoming(value, before)
        results = list(body(i, list(phis)))
        following = self.add(i, 1)
        end = self.block.block
        i.add_incoming(following, end)
        for phi, value in zip(phis, results, strict=True):
            phi.add_incoming(value, end)
        done = self.block.append_basic_block(f"{name}.end")
        self.block.cbranch(self.block.icmp_signed("<", following, self.whole(count)), head, done)
        self.block.position_at_end(done)
        return results

    def loop(self, first: "int | Value", last: "int | Value", body: Callable[[Value], None]) -> None:
        """Runs body(i) for first <= i < last, at least once."""

        def step(i: Value, carried: list[Value]) -> list[Value]:
            body(self.add(i, first))
            return carried

        self.fold(self.sub(last, first), [], step)

    def each_vector(self, nbytes: Value, body: Callable[[Value], None]) -> None:
        """Runs body(offset in bytes) for the vectors that fill so many bytes."""
        step = self.isa.lanes * FLOAT
        self.loop(0, self.divmod(nbytes, step)[0], lambda i: body(self.mul(i, step)))

    def when(
        self, condition: Value, carried: Sequence[Value], body: Callable[[list[Value]], Sequence[Value]]
    ) -> list[Value]:
        """body(carried) where the integer condition is not 0, else carried as it is."""
        before = self.block.block
        then, end = self.block.append_basic_block("then"), self.block.append_basic_block("end")
        self.block.cbranch(self.block.icmp_signed("!=", condition, I64(0)), then, end)
        self.block.position_at_end(then)
        results = list(body(list(carried)))
        last = self.block.block
        self.block.branch(end)
        self.block.position_at_end(end)
        phis = [self.block.phi(value.type) for value in carried]
        for phi, value, result in zip(phis, carried, results, strict=True):
            phi.add_incoming(value, before)
            phi.add_incoming(result, last)
        return phis

    def call_address(self, address: Value, kinds: Sequence[Any], arguments: Sequence[Value]) -> None:
        """Calls the void function of these argument types at an address."""
        kind = ir.FunctionType(VOID, kinds)
        self.block.call(self.block.inttoptr(address, kind.as_pointer()), arguments)

    def pause(self) -> None:
        """Tells the CPU that this is a loop which waits."""
        if self.isa.architecture == "x86_64":
            self.block.call(self.declare("llvm.x86.sse2.pause", VOID, []), [])

    def declare(self, name: str, result: Any, arguments: Sequence[Any]) -> Value:
        """A function that LLVM or the C library has."""
        known = self.module.globals.get(name)
        return known or ir.Function(self.module, ir.FunctionType(result, arguments), name)

    def opaque(self, value: Value) -> Value:
        """The same value, hidden from LLVM's optimiser; it costs no instruction."""
        kind = ir.FunctionType(value.type, [value.type])
        return self.block.call(ir.InlineAsm(kind, "", "=r,0", False), [value])
