"""Global average pooling in Numba."""

import numpy as np

from resnet_ref.kernels.arrays import Array
from resnet_ref.kernels.vector.compiled import compiled


@compiled
def _mean(x, total, y):
    """y [N, C] = mean of x [N, H*W, C] over the middle axis; total [C] float64."""
    for n in range(x.shape[0]):
        total[:] = 0
        for p in range(x.shape[1]):
            for c in range(x.shape[2]):
                total[c] += x[n, p, c]
        for c in range(x.shape[2]):
            y[n, c] = total[c] / x.shape[1]


def spatial_mean(x: Array, *, threads: int = 1) -> Array:
    """[N, H, W, C] -> [N, 1, 1, C], summed in float64."""
    n, h, w, c = x.shape
    y = np.empty((n, 1, 1, c), np.float32)
    _mean(x.reshape(n, h * w, c), np.empty(c), y.reshape(n, c))
    return y
