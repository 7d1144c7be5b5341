"""The definition, written as it is read: for every output, every tap and every channel, one product.

It is slow for two reasons. Each sum is one chain of additions, which must be done in the order that is written, each
waiting some four cycles for the one before: no vectors, no overlap. And the weights of one filter lie F numbers apart,
so that each product fetches a cache line of 16 weights and uses one.
"""

import numpy as np

from resnet_ref.kernels.conv2d.ladder.apart import finish
from resnet_ref.kernels.conv2d.ladder.problem import Prepared, Problem
from resnet_ref.kernels.vector.compiled import compiled
from resnet_ref.kernels.vector.executor import ranges, run

PIECE = 32  # pixels of a task


@compiled
def _convolve(x, w, rows, cols, oh, ow, first, last, y):
    """y[p] for p in [first, last) of the [N, OH, OW] output pixels."""
    _, height, width, channels = x.shape
    for p in range(first, last):
        n, oy, ox = p // (oh * ow), p // ow % oh, p % ow
        for f in range(w.shape[3]):
            total = np.float32(0)
            for ky in range(rows.size):
                iy = oy * rows.stride + ky * rows.rate - rows.before
                for kx in range(cols.size):
                    ix = ox * cols.stride + kx * cols.rate - cols.before
                    if 0 <= iy < height and 0 <= ix < width:
                        for c in range(channels):
                            total += x[n, iy, ix, c] * w[ky, kx, c, f]
            y[p, f] = total


def prepare(problem: Problem, threads: int) -> Prepared:
    """Threads share the output pixels."""
    _, oh, ow, f = problem.shape
    y = np.empty((problem.pixels, f), np.float32)
    pieces = ranges(len(y), PIECE)

    def convolve(piece: int) -> None:
        _convolve(problem.x, problem.w, problem.rows, problem.cols, oh, ow, *pieces[piece], y)

    def compute() -> None:
        run(convolve, len(pieces), threads)
        finish(problem, y, threads)

    return Prepared(compute, lambda: y.reshape(problem.shape).copy())
