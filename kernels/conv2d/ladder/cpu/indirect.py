"""Nothing is copied: a table says where each tap of each output lies, and the product reads x there.

The matrix was only ever x again, in another order. A tap is C numbers that lie side by side, so that one entry of the
table, made once for a shape, stands for all of them: padding, stride and rate are the table's business. (M. Dukhan,
The Indirect Convolution Algorithm, arXiv:1907.02129.)

BLAS takes matrices, not tables, so that the product has to be ours from here on, and this first one is a plain loop: a
number of x times a row of weights is added to the F sums of a pixel. The compiler makes vectors of that, but the sums
are loaded and stored again for each product, three memory accesses for one multiplication and one addition. What is
saved on copies is lost on that, and more. The next rung wins it back.
"""

import numpy as np

from resnet_ref.kernels.conv2d.ladder.apart import finish
from resnet_ref.kernels.conv2d.ladder.problem import Prepared, Problem
from resnet_ref.kernels.vector.compiled import compiled
from resnet_ref.kernels.vector.executor import ranges, run
from resnet_ref.kernels.vector.step import Buffer, Map

PIECE = 32  # pixels of a task
PADDING = -1


@compiled
def _convolve(x, table, w, first, last, y):
    """y[p] for p in [first, last); x [pixels, C], table [pixels of y, taps], w [taps, C, F]."""
    for p in range(first, last):
        sums = y[p]
        sums[:] = 0
        for tap in range(table.shape[1]):
            if table[p, tap] != PADDING:
                pixel = x[table[p, tap]]
                for c in range(len(pixel)):
                    value = pixel[c]
                    for f in range(len(sums)):
                        sums[f] += value * w[tap, c, f]


def prepare(problem: Problem, threads: int) -> Prepared:
    """Threads share the output pixels."""
    n, h, width, c = problem.x.shape
    pixels = Map(n, h, width, 1, 1, Buffer(0))  # of one number each, so that places are pixels' numbers
    table = pixels.taps(0, problem.rows, problem.cols, PADDING).reshape(problem.pixels, -1)
    x, w = problem.x.reshape(-1, c), problem.w.reshape(table.shape[1], c, -1)
    y = np.empty((problem.pixels, problem.shape[3]), np.float32)
    pieces = ranges(len(y), PIECE)

    def compute() -> None:
        run(lambda piece: _convolve(x, table, w, *pieces[piece], y), len(pieces), threads)
        finish(problem, y, threads)

    return Prepared(compute, lambda: y.reshape(problem.shape).copy())
