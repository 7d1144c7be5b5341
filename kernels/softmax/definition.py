"""Softmax over the last axis, shifted by the maximum so that no exponential overflows."""

import numpy as np

from resnet_ref.kernels.arrays import Array


def softmax(x: Array) -> Array:
    """exp(x) / sum(exp(x)) over the last axis of x [..., classes]."""
    e = np.exp(x - x.max(axis=-1, keepdims=True))
    return e / e.sum(axis=-1, keepdims=True)
