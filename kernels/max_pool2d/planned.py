"""Max pooling for a Plan: a running maximum over taps whose places stand in a table; padding is the lowest number."""

from resnet_ref.kernels.geometry import Window
from resnet_ref.kernels.vector import sharing
from resnet_ref.kernels.vector.emit import Emitter, Layout, Value
from resnet_ref.kernels.vector.program import HEADER, OPERATION
from resnet_ref.kernels.vector.step import LOWEST, Map, Step, Target

# Pixels of y, shared among the tasks; table [pixels, taps]; step: bytes of a pixel.
POOL = Layout(*HEADER.names, *sharing.FIELDS, "x", "table", "taps", "y", "step")


def emit_pool(e: Emitter) -> None:
    """`max_pool(record, task, scratch)`: x > best is false for NaN, so NaN never wins."""
    with e.function("max_pool", OPERATION) as (record, task, _):
        f = e.record(record, POOL)

        def pixel(number: Value) -> None:
            entries = e.at(e.pointer(f.table), e.mul(e.mul(number, f.taps), 4))
            target = e.at(e.pointer(f.y), e.mul(number, f.step))

            def vector(offset: Value) -> None:
                def tap(t: Value, best: list[Value]) -> list[Value]:
                    place = e.at(e.pointer(f.x), e.index(e.at(entries, e.mul(t, 4))), offset)
                    x = e.load(e.vector, place)
                    return [e.block.select(e.block.fcmp_ordered(">", x, best[0]), x, best[0])]

                (best,) = e.fold(f.taps, [e.constant(LOWEST)], tap)
                e.store(best, e.at(target, offset))

            e.each_vector(f.step, vector)

        e.loop(*sharing.share(e, f, task), pixel)


def max_pool(target: Target, name: str, x: Map, y: Map, rows: Window, cols: Window) -> Step:
    """y = the maximum over each window of x."""
    count, ranges = target.shares(y.pixels)
    return Step(
        name,
        "maximum",
        target.library["max_pool"],
        POOL,
        count,
        (x.buffer,),
        (y.buffer,),
        lambda memory: dict(
            ranges,
            x=memory.base,
            table=memory.table(x.taps(memory.index(x), rows, cols, memory.index(memory.lowest))),
            taps=rows.size * cols.size,
            y=memory.address(y),
            step=y.step,
        ),
    )
