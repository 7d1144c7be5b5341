"""The matrix is made in blocks of rows, each multiplied at once and then written over by the next.

A block of at most 2 MB is still in the core's cache when the product reads it, so that the matrix never goes to memory
and back; and what it takes no longer grows with the image. A 1x1 kernel needs no matrix at all: its input is one. This
is the eager cpu tier, `kernels/conv2d/cpu.py`, without its epilogue.
"""

import numpy as np

from resnet_ref.kernels.conv2d.cpu import conv2d
from resnet_ref.kernels.conv2d.ladder.apart import finish
from resnet_ref.kernels.conv2d.ladder.problem import Prepared, Problem


def prepare(problem: Problem, threads: int) -> Prepared:
    """Threads share the blocks."""
    y = np.empty(problem.shape, np.float32)

    def compute() -> None:
        conv2d(problem.x, problem.w, problem.rows, problem.cols, out=y, threads=threads)
        finish(problem, y.reshape(problem.pixels, -1), threads)

    return Prepared(compute, y.copy)
