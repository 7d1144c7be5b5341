"""Softmax for a Plan: the exponential by halving its argument's range, then a polynomial; all in float64.

exp(x) = 2^k exp(r),    k = round(x / ln 2),    |r| <= ln(2) / 2
"""

import math

from resnet_ref.kernels.vector.emit import F32, F64, FLOAT, I64, Emitter, Layout, Value
from resnet_ref.kernels.vector.program import HEADER, OPERATION
from resnet_ref.kernels.vector.step import Map, Step, Target

# A task is one row of `classes` numbers; step: bytes from a row to the next, of x and of y.
SOFTMAX = Layout(*HEADER.names, "x", "y", "classes", "step")
DEGREE = 12  # 0.35^13 / 13! is below float64's rounding
SMALLEST = -700.0  # exp of it is 1e-304; float32 knows it as 0


def emit_softmax(e: Emitter) -> None:
    """`softmax(record, task, scratch)`: shifted by the largest, so that nothing overflows."""
    with e.function("softmax", OPERATION) as (record, task, _):
        f = e.record(record, SOFTMAX)
        x, y = (e.at(e.pointer(start), e.mul(task, f.step)) for start in (f.x, f.y))

        def larger(i: Value, best: list[Value]) -> list[Value]:
            value = e.load(F32, e.at(x, e.mul(i, FLOAT)))
            return [e.block.select(e.block.fcmp_unordered("<", value, best[0]), best[0], value)]

        (largest,) = e.fold(f.classes, [e.load(F32, x)], larger)

        def exponential(i: Value, total: list[Value]) -> list[Value]:
            value = e.load(F32, e.at(x, e.mul(i, FLOAT)))
            power = e.block.fptrunc(_exp(e, e.block.fsub(e.block.fpext(value, F64), e.block.fpext(largest, F64))), F32)
            e.store(power, e.at(y, e.mul(i, FLOAT)))
            return [e.block.fadd(total[0], e.block.fpext(power, F64))]

        (total,) = e.fold(f.classes, [F64(0.0)], exponential)

        def divide(i: Value) -> None:
            place = e.at(y, e.mul(i, FLOAT))
            quotient = e.block.fdiv(e.block.fpext(e.load(F32, place), F64), total)
            e.store(e.block.fptrunc(quotient, F32), place)

        e.loop(0, f.classes, divide)


def _exp(e: Emitter, x: Value) -> Value:
    """exp(x) for x <= 0 or NaN."""
    b = e.block
    x = b.select(b.fcmp_ordered("<", x, F64(SMALLEST)), F64(SMALLEST), x)
    k = b.fptosi(b.fsub(b.fdiv(x, F64(math.log(2))), F64(0.5)), I64)
    is_number = b.fcmp_ordered("ord", x, x)
    k = b.select(is_number, k, I64(0))
    r = b.fsub(x, b.fmul(b.sitofp(k, F64), F64(math.log(2))))
    result = F64(1 / math.factorial(DEGREE))
    for n in range(DEGREE - 1, -1, -1):
        result = b.fadd(b.fmul(result, r), F64(1 / math.factorial(n)))
    return b.fmul(result, b.bitcast(b.shl(b.add(k, I64(1023)), I64(52)), F64))


def softmax(target: Target, name: str, x: Map, y: Map) -> Step:
    """y = softmax of each pixel of x over its channels."""
    return Step(
        name,
        "softmax",
        target.library["softmax"],
        SOFTMAX,
        x.pixels,
        (x.buffer,),
        (y.buffer,),
        lambda memory: {
            "x": memory.address(x),
            "y": memory.address(y),
            "classes": x.c,
            "step": x.step,
        },
    )
