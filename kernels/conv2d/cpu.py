"""Convolution by im2col in blocks: the matrix is never whole, each thread fills and multiplies its own piece.

Memory beyond input, weights and output: per thread a block of at most BLOCK_BYTES, or of BLOCK_ROWS rows where a row is
longer than that; for maps of at most SMALL_MAP pixels one matrix of that many rows, shared by all threads.
The product itself is NumPy's BLAS on one thread.
"""

import threading
from collections.abc import Callable

import numpy as np

from resnet_ref.kernels.activation import bounds
from resnet_ref.kernels.arrays import Array
from resnet_ref.kernels.geometry import Window
from resnet_ref.kernels.vector.blas import multiply, single_threaded
from resnet_ref.kernels.vector.compiled import compiled
from resnet_ref.kernels.vector.executor import ranges, run

BLOCK_BYTES = 2 << 20
BLOCK_ROWS = 32
MOST_ROWS = 392  # so that a small map still has blocks for several threads
SMALL_MAP = 256
PANEL = 64  # output channels a task takes where there are too few pixels to share out

Finish = Callable[[int, int, int, int], None]  # the epilogue on y[first:last, left:right]
_NO_BIAS = np.zeros(0, np.float32)
_NO_RESIDUAL = np.zeros((0, 0, 0, 0), np.float32)
_scratch = threading.local()


@compiled
def _gather(x, rows, cols, oh, ow, first, last, matrix):
    """matrix[p - first] = the taps of output pixel p of the [N, OH, OW] there are, for p in [first, last)."""
    _, h, w, c = x.shape
    together = cols.size if cols.rate == 1 else 1  # taps that lie side by side in memory
    for p in range(first, last):
        n, oy, ox = p // (oh * ow), p // ow % oh, p % ow
        row = matrix[p - first]
        k = 0
        for ky in range(rows.size):
            y = oy * rows.stride + ky * rows.rate - rows.before
            for kx in range(0, cols.size, together):
                left = ox * cols.stride + kx * cols.rate - cols.before
                start, end = max(left, 0), min(left + together, w)
                if y < 0 or y >= h or start >= end:
                    start = end = left
                else:
                    source = x[n, y].reshape(w * c)
                    for i in range(start * c, end * c):
                        row[k + i - left * c] = source[i]
                # What lies left and right of the input, or all of it, is padding.
                for i in range(k, k + (start - left) * c):
                    row[i] = 0
                for i in range(k + (end - left) * c, k + together * c):
                    row[i] = 0
                k += together * c


@compiled
def _finish(y, oh, ow, first, last, left, right, bias, residual, stride, low, high):
    """The epilogue on y[first:last, left:right], where y is [N*OH*OW, F] and residual [N, RH, RW, F], or empty."""
    for p in range(first, last):
        if bias.size:
            for f in range(left, right):
                y[p, f] += bias[f]
        if residual.size:
            n, oy, ox = p // (oh * ow), p // ow % oh, p % ow
            for f in range(left, right):
                y[p, f] += residual[n, oy * stride, ox * stride, f]
        for f in range(left, right):
            v = y[p, f]
            y[p, f] = low if v < low else high if v > high else v


def im2col(x: Array, rows: Window, cols: Window, *, threads: int = 1) -> Array:
    """[N, H, W, C] -> [N*OH*OW, KH*KW*C]: row (n, oy, ox) holds the taps of that output, in HWI order."""
    oh, ow = rows.out(x.shape[1]), cols.out(x.shape[2])
    matrix = np.empty((x.shape[0] * oh * ow, rows.size * cols.size * x.shape[3]), x.dtype)
    pieces = ranges(len(matrix), _block_rows(matrix.shape[1]))

    def fill(piece: int) -> None:
        first, last = pieces[piece]
        _gather(x, rows, cols, oh, ow, first, last, matrix[first:last])

    run(fill, len(pieces), threads)
    return matrix


def conv2d(
    x: Array,
    w: Array,
    rows: Window,
    cols: Window,
    *,
    bias: Array | None = None,
    residual: Array | None = None,
    residual_stride: int = 1,
    activation: str | None = None,
    out: Array | None = None,
    threads: int = 1,
) -> Array:
    """activation(conv(x, w) + bias + residual[:, ::s, ::s]); x [N, H, W, C], w [KH, KW, C, F] -> [N, OH, OW, F]."""
    shape = (x.shape[0], rows.out(x.shape[1]), cols.out(x.shape[2]), w.shape[3])
    out = np.empty(shape, np.float32) if out is None else out
    y, weights = out.reshape(-1, shape[3]), w.reshape(-1, shape[3])
    low, high = (np.float32(bound) for bound in bounds(activation))
    bias = _NO_BIAS if bias is None else bias
    residual = _NO_RESIDUAL if residual is None else residual
    has_epilogue = bool(bias.size or residual.size or activation)

    def finish(first: int, last: int, left: int, right: int) -> None:
        if has_epilogue:
            _finish(y, shape[1], shape[2], first, last, left, right, bias, residual, residual_stride, low, high)

    with single_threaded():
        share_out = _multiply_by_rows if len(y) > SMALL_MAP else _multiply_by_columns
        share_out(x, rows, cols, weights, y, finish, threads)
    return out


def _multiply_by_rows(
    x: Array, rows: Window, cols: Window, weights: Array, y: Array, finish: Finish, threads: int
) -> None:
    """y = im2col(x) @ weights; each task takes a block of the matrix's rows, and never more than that exists."""
    oh, ow = rows.out(x.shape[1]), cols.out(x.shape[2])
    blocks = ranges(len(y), _block_rows(len(weights)))
    whole = _as_matrix(x, rows, cols)

    def task(block: int) -> None:
        first, last = blocks[block]
        if whole is None:
            matrix = _scratch_block(last - first, len(weights))
            _gather(x, rows, cols, oh, ow, first, last, matrix)
        else:
            matrix = whole[first:last]
        multiply(matrix, weights, y[first:last])
        finish(first, last, 0, y.shape[1])

    run(task, len(blocks), threads)


def _multiply_by_columns(
    x: Array, rows: Window, cols: Window, weights: Array, y: Array, finish: Finish, threads: int
) -> None:
    """y = im2col(x) @ weights for a small map: the matrix is made once, each task takes a panel of its product."""
    whole = _as_matrix(x, rows, cols)
    matrix = im2col(x, rows, cols, threads=threads) if whole is None else whole
    panels = ranges(y.shape[1], PANEL)

    def task(panel: int) -> None:
        left, right = panels[panel]
        multiply(matrix, weights[:, left:right], y[:, left:right])
        finish(0, len(y), left, right)

    run(task, len(panels), threads)


def _as_matrix(x: Array, rows: Window, cols: Window) -> Array | None:
    """x itself as the matrix, where each output reads just its own pixel; else None."""
    return x.reshape(-1, x.shape[3]) if rows.is_identity and cols.is_identity else None


def _block_rows(columns: int) -> int:
    return max(BLOCK_ROWS, min(MOST_ROWS, BLOCK_BYTES // (4 * columns)))


def _scratch_block(rows: int, columns: int) -> Array:
    """This thread's block, kept between calls while it is no larger than BLOCK_BYTES."""
    kept = getattr(_scratch, "block", None)
    if kept is None or kept.size < rows * columns:
        kept = np.empty(max(rows * columns, BLOCK_BYTES // 4), np.float32)
        if kept.nbytes <= BLOCK_BYTES:
            _scratch.block = kept
    return kept[: rows * columns].reshape(rows, columns)
