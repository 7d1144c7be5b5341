"""Max pooling in Numba: a running maximum over the taps that fall inside the input."""

import numpy as np

from resnet_ref.kernels.arrays import Array
from resnet_ref.kernels.geometry import Window
from resnet_ref.kernels.vector.compiled import compiled
from resnet_ref.kernels.vector.executor import run

_LOWEST = np.finfo(np.float32).min


@compiled
def _pool_row(x, rows, cols, n, oy, y):
    """One row of outputs: y [OW, C]. `v > best` is false for NaN, so NaN never wins."""
    _, h, w, c = x.shape
    for ox in range(y.shape[0]):
        for ch in range(c):
            y[ox, ch] = _LOWEST
        for ky in range(rows.size):
            for kx in range(cols.size):
                yy = oy * rows.stride + ky * rows.rate - rows.before
                xx = ox * cols.stride + kx * cols.rate - cols.before
                if 0 <= yy < h and 0 <= xx < w:
                    for ch in range(c):
                        v = x[n, yy, xx, ch]
                        y[ox, ch] = v if v > y[ox, ch] else y[ox, ch]


def max_pool2d(x: Array, rows: Window, cols: Window, *, threads: int = 1) -> Array:
    """[N, H, W, C] -> [N, OH, OW, C]. Padding and NaN never win; where nothing else is there, the lowest float does."""
    n, h, w, c = x.shape
    height = rows.out(h)
    y = np.empty((n, height, cols.out(w), c), np.float32)
    run(lambda i: _pool_row(x, rows, cols, i // height, i % height, y[i // height, i % height]), n * height, threads)
    return y
