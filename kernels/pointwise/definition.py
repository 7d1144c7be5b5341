"""What happens to each value by itself: bias, activation, and the end of a residual unit."""

import numpy as np

from resnet_ref.kernels.activation import bounds
from resnet_ref.kernels.arrays import Array, emit


def add_bias(x: Array, bias: Array) -> Array:
    """x [..., C] + bias [C]."""
    return x + bias


def relu(x: Array, *, out: Array | None = None) -> Array:
    """max(x, 0); NaN stays NaN, as in tf.nn.relu."""
    return emit(np.clip(x, *bounds("relu")), out)


def relu6(x: Array, *, out: Array | None = None) -> Array:
    """min(max(x, 0), 6), as tf.nn.relu6."""
    return emit(np.clip(x, *bounds("relu6")), out)


def add_relu(shortcut: Array, residual: Array, *, out: Array | None = None) -> Array:
    """relu(shortcut + residual): the end of slim's bottleneck."""
    return relu(shortcut + residual, out=out)


def add_relu6(shortcut: Array, residual: Array, *, out: Array | None = None) -> Array:
    """relu6(shortcut + clip(residual, -6, 6)): the end of slim's bottleneck with bounded activations."""
    return relu6(shortcut + np.clip(residual, -6, 6), out=out)
