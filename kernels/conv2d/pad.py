"""Images with their padding written out, for kernels whose taps of one row then lie side by side in memory.

With few channels (three, in a network's first layer) a tap is too short a row for the tile; a whole kernel row is not.
"""

from llvmlite import ir

from resnet_ref.kernels.vector import sharing
from resnet_ref.kernels.vector.emit import I8, I64, POINTER, VOID, Emitter, Layout, Value
from resnet_ref.kernels.vector.program import HEADER, OPERATION

# Rows of all padded images, shared among the tasks. width, left, right: bytes of an image's row, of zeros beside it.
PAD = Layout(*HEADER.names, *sharing.FIELDS, "x", "y", "top", "rows", "padded_rows", "width", "left", "right")


def emit_pad(e: Emitter) -> None:
    """`pad(record, task, scratch)`."""
    with e.function("pad", OPERATION) as (record, task, _):
        f = e.record(record, PAD)
        step = e.add(e.add(f.left, f.width), f.right)

        def row(number: Value) -> None:
            image, y = e.divmod(number, f.padded_rows)
            inside = e.sub(y, f.top)
            target = e.at(e.pointer(f.y), e.mul(number, step))
            source = e.at(e.pointer(f.x), e.mul(e.add(e.mul(image, f.rows), inside), f.width))
            # One comparison says both: as an unsigned number, -1 is large.
            with e.block.if_else(e.block.icmp_unsigned("<", inside, f.rows)) as (then, otherwise):
                with then:
                    _zero(e, target, f.left)
                    _copy(e, e.at(target, f.left), source, f.width)
                    _zero(e, e.at(target, f.left, f.width), f.right)
                with otherwise:
                    _zero(e, target, step)

        e.loop(*sharing.share(e, f, task), row)


def _zero(e: Emitter, target: Value, nbytes: Value) -> None:
    function = e.declare("llvm.memset.p0.i64", VOID, [POINTER, I8, I64, ir.IntType(1)])
    e.block.call(function, [target, I8(0), nbytes, ir.IntType(1)(0)])


def _copy(e: Emitter, target: Value, source: Value, nbytes: Value) -> None:
    function = e.declare("llvm.memcpy.p0.p0.i64", VOID, [POINTER, POINTER, I64, ir.IntType(1)])
    e.block.call(function, [target, source, nbytes, ir.IntType(1)(0)])
