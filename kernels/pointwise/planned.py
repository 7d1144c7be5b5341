"""The end of a residual unit, and activations, for a Plan, where no convolution could take them along.

Also the strided copy (subsample): a pixel of each operand is looked up in a table.
"""

from resnet_ref.kernels.activation import bounds
from resnet_ref.kernels.vector import sharing
from resnet_ref.kernels.vector.emit import Emitter, Layout, Value, float_bits
from resnet_ref.kernels.vector.program import HEADER, OPERATION
from resnet_ref.kernels.vector.step import Map, Step, Target

# y = clamp(x + clip(residual, -bound, bound)); a table has a place for each pixel of y; step: bytes of a pixel.
ADD = Layout(
    *HEADER.names, *sharing.FIELDS, "x", "table", "has_residual", "residual", "bound", "low", "high", "y", "step"
)


def emit_add(e: Emitter) -> None:
    """`add(record, task, scratch)`."""
    with e.function("add", OPERATION) as (record, task, _):
        f = e.record(record, ADD)
        low, high, bound = (e.splat_bits(bits) for bits in (f.low, f.high, f.bound))

        def pixel(number: Value) -> None:
            x = e.at(e.pointer(f.x), e.index(e.at(e.pointer(f.table), e.mul(number, 4))))
            residual = e.at(e.pointer(f.residual), e.mul(number, f.step))
            y = e.at(e.pointer(f.y), e.mul(number, f.step))

            def vector(offset: Value) -> None:
                def add(carried: list[Value]) -> list[Value]:
                    r = e.clamp(e.load(e.vector, e.at(residual, offset)), e.block.fneg(bound), bound)
                    return [e.block.fadd(carried[0], r)]

                (value,) = e.when(f.has_residual, [e.load(e.vector, e.at(x, offset))], add)
                e.store(e.clamp(value, low, high), e.at(y, offset))

            e.each_vector(f.step, vector)

        e.loop(*sharing.share(e, f, task), pixel)


def add(
    target: Target, name: str, x: Map, y: Map, *, stride: int = 1, residual: Map | None = None, activation: str | None
) -> Step:
    """y = activation(x[:, ::stride, ::stride] + residual), the residual first clipped as relu6 wants it."""
    count, ranges = target.shares(y.pixels)
    low, high = bounds(activation)
    return Step(
        name,
        "pointwise",
        target.library["add"],
        ADD,
        count,
        (x.buffer,) if residual is None else (x.buffer, residual.buffer),
        (y.buffer,),
        lambda memory: dict(
            ranges,
            x=memory.address(x),
            table=memory.table(x.strided(stride)),
            has_residual=int(residual is not None),
            residual=0 if residual is None else memory.address(residual),
            bound=float_bits(high),
            low=float_bits(low),
            high=float_bits(high),
            y=memory.address(y),
            step=y.step,
        ),
    )
