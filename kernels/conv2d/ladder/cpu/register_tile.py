"""The sums of a tile, several pixels by several vectors of channels, stay in registers until they are complete.

With AVX-512 a tile is 14 pixels by 32 channels: 28 of the 32 registers hold sums. A step along a tap's channels loads
two vectors of weights and broadcasts one number of each pixel, 16 loads for 28 multiply-adds, where the rung before
took two loads and a store for each. So it is the multipliers that limit, not memory. For that the weights are packed
once, as panels in the order in which they are read, and the loops are written as vectors by an emitter of our own,
since the compiler's vectoriser does not find this code. The tile is `kernels/vector/tile.py`; what it takes from cache
and when, `kernels/conv2d/multiply.py`. Both are what production runs, here without their epilogue.
"""

from resnet_ref.kernels.conv2d.direct_planned import direct
from resnet_ref.kernels.conv2d.ladder.apart import finish
from resnet_ref.kernels.conv2d.ladder.planned import Alone
from resnet_ref.kernels.conv2d.ladder.problem import Prepared, Problem


def prepare(problem: Problem, threads: int) -> Prepared:
    """The convolution alone, then the epilogue over its memory."""
    alone = Alone(Problem(*problem[:4]), direct, threads)

    def compute() -> None:
        alone.program.run()
        finish(problem, alone.pixels, threads)

    return Prepared(compute, alone.result)
