"""What each output reads is copied into a row of a matrix, so that the convolution becomes one matrix product.

    [N*OH*OW, KH*KW*C]  @  [KH*KW*C, F]

A matrix product is what libraries have been tuned for longest: NumPy's BLAS keeps sums in registers, multiplies whole
vectors and walks memory in order. The price is the matrix. A 3x3 kernel copies every input number nine times: of 56x56
pixels by 64 channels (0.8 MB) it makes 7.2 MB, and a 1x1 kernel, whose input is the matrix already, copies that once.
"""

import numpy as np

from resnet_ref.kernels.conv2d.cpu import im2col
from resnet_ref.kernels.conv2d.ladder.apart import finish
from resnet_ref.kernels.conv2d.ladder.problem import Prepared, Problem
from resnet_ref.kernels.vector.blas import multiply, threaded


def prepare(problem: Problem, threads: int) -> Prepared:
    """The matrix is made anew by each run; BLAS multiplies all of it, with so many threads of its own."""
    weights = problem.w.reshape(-1, problem.shape[3])
    y = np.empty((problem.pixels, problem.shape[3]), np.float32)

    def compute() -> None:
        matrix = im2col(problem.x, problem.rows, problem.cols, threads=threads)
        with threaded(threads):
            multiply(matrix, weights, y)
        finish(problem, y, threads)

    return Prepared(compute, lambda: y.reshape(problem.shape).copy())
