"""Batch normalisation in Numba: one pass to normalise, one each for mean and variance; sums in float64."""

import numpy as np

from resnet_ref.kernels.activation import bounds
from resnet_ref.kernels.arrays import Array, emit
from resnet_ref.kernels.batch_norm.definition import moving_average, unbiased
from resnet_ref.kernels.vector.compiled import compiled
from resnet_ref.kernels.vector.executor import ranges, run

__all__ = ["batch_norm", "batch_statistics", "moving_average", "unbiased"]

PIECE_BYTES = 1 << 20
STATISTICS_ROWS = 4096  # rows summed into one partial sum; fixed, so that results do not depend on the threads


@compiled
def _normalise(y, mean, scale, beta, low, high, first, last):
    """y[p] = clamp((y[p] - mean) * scale + beta) for rows p in [first, last) of y [rows, C]; the others are [C].

    In place, because the compiler uses vectors only where it can tell that input and output do not overlap.
    """
    for p in range(first, last):
        for c in range(y.shape[1]):
            v = (y[p, c] - mean[c]) * scale[c] + beta[c]
            y[p, c] = low if v < low else high if v > high else v


@compiled
def _add_rows(x, first, last, total):
    for p in range(first, last):
        for c in range(x.shape[1]):
            total[c] += x[p, c]


@compiled
def _add_squares(x, mean, first, last, total):
    for p in range(first, last):
        for c in range(x.shape[1]):
            d = x[p, c] - mean[c]
            total[c] += d * d


def batch_norm(
    x: Array,
    gamma: Array | None,
    beta: Array,
    mean: Array,
    variance: Array,
    epsilon: float,
    *,
    activation: str | None = None,
    out: Array | None = None,
    threads: int = 1,
) -> Array:
    """activation((x - mean) * (gamma / sqrt(variance + epsilon)) + beta) over the last axis; all [C]."""
    scale = 1 / np.sqrt(variance + np.float32(epsilon))
    if gamma is not None:
        scale = scale * gamma
    if out is not x:
        out = x.copy() if out is None else emit(x, out)
    low, high = (np.float32(bound) for bound in bounds(activation))
    y = out.reshape(-1, x.shape[3])
    pieces = ranges(len(y), max(1, PIECE_BYTES // (4 * y.shape[1])))
    run(lambda i: _normalise(y, mean, scale, beta, low, high, *pieces[i]), len(pieces), threads)
    return out


def batch_statistics(x: Array, *, threads: int = 1) -> tuple[Array, Array]:
    """Mean and biased variance [C] of x [N, H, W, C] over N, H, W; summed in float64, returned in float32."""
    source = x.reshape(-1, x.shape[3])
    pieces = ranges(len(source), STATISTICS_ROWS)
    sums = np.zeros((len(pieces), x.shape[3]))
    run(lambda i: _add_rows(source, *pieces[i], sums[i]), len(pieces), threads)
    mean = sums.sum(axis=0) / len(source)
    squares = np.zeros_like(sums)
    run(lambda i: _add_squares(source, mean, *pieces[i], squares[i]), len(pieces), threads)
    return mean.astype(np.float32), (squares.sum(axis=0) / len(source)).astype(np.float32)
