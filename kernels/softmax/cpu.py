"""Softmax in Numba."""

import math

import numpy as np

from resnet_ref.kernels.arrays import Array
from resnet_ref.kernels.vector.compiled import compiled


@compiled
def _rows(x, y):
    """y = softmax of each row of x [rows, classes]; the sum runs in float64."""
    for r in range(x.shape[0]):
        largest = x[r].max()
        total = np.float64(0)
        for c in range(x.shape[1]):
            e = np.float32(math.exp(x[r, c] - largest))
            y[r, c] = e
            total += e
        for c in range(x.shape[1]):
            y[r, c] /= total


def softmax(x: Array, *, threads: int = 1) -> Array:
    """exp(x) / sum(exp(x)) over the last axis of x [..., classes]."""
    y = np.empty_like(x)
    _rows(x.reshape(-1, x.shape[-1]), y.reshape(-1, x.shape[-1]))
    return y
