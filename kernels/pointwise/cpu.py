"""The pointwise kernels in Numba: one pass over flat memory each."""

from collections.abc import Callable

import numpy as np

from resnet_ref.kernels.activation import bounds
from resnet_ref.kernels.arrays import Array
from resnet_ref.kernels.vector.compiled import compiled
from resnet_ref.kernels.vector.executor import ranges, run

PIECE = 1 << 16


@compiled
def _clamp(x, low, high, y):
    for i in range(x.size):
        v = x[i]
        y[i] = low if v < low else high if v > high else v


@compiled
def _add_clamp(shortcut, residual, low, high, bound, y):
    """y = clamp(shortcut + clip(residual, -bound, bound))."""
    for i in range(y.size):
        r = residual[i]
        r = -bound if r < -bound else bound if r > bound else r
        v = shortcut[i] + r
        y[i] = low if v < low else high if v > high else v


@compiled
def _add_rows(x, bias, y):
    for p in range(x.shape[0]):
        for c in range(x.shape[1]):
            y[p, c] = x[p, c] + bias[c]


def _in_pieces(kernel: Callable[..., None], x: Array, out: Array | None, threads: int) -> Array:
    """kernel(slice, flat output) over slices of the flattened x."""
    out = np.empty_like(x) if out is None else out
    flat, pieces = out.reshape(-1), ranges(x.size, PIECE)
    run(lambda i: kernel(slice(*pieces[i]), flat[slice(*pieces[i])]), len(pieces), threads)
    return out


def add_bias(x: Array, bias: Array, *, threads: int = 1) -> Array:
    """x [..., C] + bias [C]."""
    y = np.empty_like(x)
    _add_rows(x.reshape(-1, x.shape[-1]), bias, y.reshape(-1, x.shape[-1]))
    return y


def relu(x: Array, *, out: Array | None = None, threads: int = 1) -> Array:
    """max(x, 0); NaN stays NaN, as in tf.nn.relu."""
    return _activate(x, "relu", out, threads)


def relu6(x: Array, *, out: Array | None = None, threads: int = 1) -> Array:
    """min(max(x, 0), 6), as tf.nn.relu6."""
    return _activate(x, "relu6", out, threads)


def add_relu(shortcut: Array, residual: Array, *, out: Array | None = None, threads: int = 1) -> Array:
    """relu(shortcut + residual): the end of slim's bottleneck."""
    return _add_activate(shortcut, residual, "relu", np.float32(np.inf), out, threads)


def add_relu6(shortcut: Array, residual: Array, *, out: Array | None = None, threads: int = 1) -> Array:
    """relu6(shortcut + clip(residual, -6, 6)): the end of slim's bottleneck with bounded activations."""
    return _add_activate(shortcut, residual, "relu6", np.float32(6), out, threads)


def _activate(x: Array, activation: str, out: Array | None, threads: int) -> Array:
    low, high = (np.float32(bound) for bound in bounds(activation))
    source = x.reshape(-1)
    return _in_pieces(lambda piece, y: _clamp(source[piece], low, high, y), x, out, threads)


def _add_activate(
    shortcut: Array, residual: Array, activation: str, bound: np.float32, out: Array | None, threads: int
) -> Array:
    low, high = (np.float32(b) for b in bounds(activation))
    a, b = shortcut.reshape(-1), residual.reshape(-1)
    return _in_pieces(lambda piece, y: _add_clamp(a[piece], b[piece], low, high, bound, y), residual, out, threads)
