"""The matrix is made in blocks of rows, each multiplied at once and then written over by the next.

What is won is memory: no more than 2 MiB a thread, however large the image, where the whole matrix of a large one takes
gigabytes. Time is won where the whole matrix would have gone to memory and come back; as long as some cache of the CPU
holds it, hardly any. And a 1x1 kernel needs no matrix at all: its input is one. This is the eager cpu tier,
`kernels/conv2d/cpu.py`, without its epilogue. (It makes the matrix of a map of at most 256 pixels whole, and cuts the
weights up instead.)
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
