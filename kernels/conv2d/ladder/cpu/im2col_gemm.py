"""What each output reads is copied into a row of a matrix, so that the convolution becomes one matrix product.

    [N*OH*OW, KH*KW*C]  @  [KH*KW*C, F]

A matrix product is what libraries have been tuned for longest: NumPy's BLAS keeps sums in registers, multiplies whole
vectors and walks memory in order. The price is the matrix. A 3x3 kernel copies every input number nine times: of 56x56
pixels by 64 channels (0.8 MB) it makes 7.2 MB, written to memory, which no cache of a core holds, and read from there.
"""

import numpy as np

from resnet_ref.kernels.conv2d.cpu import MOST_ROWS, im2col
from resnet_ref.kernels.conv2d.ladder.apart import finish
from resnet_ref.kernels.conv2d.ladder.problem import Prepared, Problem
from resnet_ref.kernels.vector.blas import single_threaded
from resnet_ref.kernels.vector.executor import ranges, run


def prepare(problem: Problem, threads: int) -> Prepared:
    """The matrix is made anew by each run; threads share its rows, of which each multiplies a piece at a time."""
    weights = problem.w.reshape(-1, problem.shape[3])
    y = np.empty((problem.pixels, problem.shape[3]), np.float32)
    pieces = ranges(len(y), MOST_ROWS)

    def compute() -> None:
        matrix = im2col(problem.x, problem.rows, problem.cols, threads=threads)

        def multiply(piece: int) -> None:
            first, last = pieces[piece]
            np.matmul(matrix[first:last], weights, out=y[first:last])

        with single_threaded():
            run(multiply, len(pieces), threads)
        finish(problem, y, threads)

    return Prepared(compute, lambda: y.reshape(problem.shape).copy())
