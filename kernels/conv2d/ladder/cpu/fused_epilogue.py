"""Bias, residual and activation are applied to the sums while they are still in registers, and then written once.

Apart, each part of the epilogue reads and writes all of y again: for 56x56 pixels by 256 channels, 3.2 MB, that is up
to six passes through memory for a few additions. In registers they cost three instructions a vector, and the residual
is the only thing more that is read; the tile asks for it before its sums begin, so that it is there when they end.
"""

from resnet_ref.kernels.conv2d.direct_planned import direct
from resnet_ref.kernels.conv2d.ladder.planned import Alone
from resnet_ref.kernels.conv2d.ladder.problem import Prepared, Problem


def prepare(problem: Problem, threads: int) -> Prepared:
    """The plan's direct convolution, as `algorithm="direct"` has it for every layer."""
    alone = Alone(problem, direct, threads)
    return Prepared(alone.program.run, alone.result)
