"""The mean over height and width for a Plan, summed in float64."""

from llvmlite import ir

from resnet_ref.kernels.vector.emit import F64, FLOAT, Emitter, Layout, Value
from resnet_ref.kernels.vector.program import HEADER, OPERATION
from resnet_ref.kernels.vector.step import Map, Step, Target

# A task is one vector of channels of one image. pixels: of an image; step: bytes of a pixel.
MEAN = Layout(*HEADER.names, "x", "y", "pixels", "step")


def emit_mean(e: Emitter) -> None:
    """`mean(record, task, scratch)`."""
    wide = ir.VectorType(F64, e.isa.lanes)
    with e.function("mean", OPERATION) as (record, task, _):
        f = e.record(record, MEAN)
        image, vector = e.divmod(task, e.divmod(f.step, e.isa.lanes * FLOAT)[0])
        offset = e.mul(vector, e.isa.lanes * FLOAT)
        x = e.at(e.pointer(f.x), e.mul(image, e.mul(f.pixels, f.step)), offset)

        def pixel(i: Value, total: list[Value]) -> list[Value]:
            return [e.block.fadd(total[0], e.block.fpext(e.load(e.vector, e.at(x, e.mul(i, f.step))), wide))]

        (total,) = e.fold(f.pixels, [ir.Constant(wide, [0.0] * e.isa.lanes)], pixel)
        count = e.splat(e.block.uitofp(f.pixels, F64))
        e.store(
            e.block.fptrunc(e.block.fdiv(total, count), e.vector), e.at(e.pointer(f.y), e.mul(image, f.step), offset)
        )


def mean(target: Target, name: str, x: Map, y: Map) -> Step:
    """y [N, 1, 1, C] = the mean of x over height and width."""
    return Step(
        name,
        "mean",
        target.library["mean"],
        MEAN,
        x.n * x.pitch // target.library.isa.lanes,
        (x.buffer,),
        (y.buffer,),
        lambda memory: {
            "x": memory.address(x),
            "y": memory.address(y),
            "pixels": x.h * x.w,
            "step": x.step,
        },
    )
