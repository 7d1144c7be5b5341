"""Launches the pointwise kernels: one pass over flat memory each."""

import math

import numpy as np

from resnet_ref.kernels.activation import bounds
from resnet_ref.kernels.arrays import Array
from resnet_ref.kernels.cuda.launch import BLOCK, Launch, blocks_for, float32, int32, source
from resnet_ref.kernels.cuda.runtime import Runtime

SOURCE = source("pointwise/gpu.cu")


def add_bias(x: Array, bias: Array, *, runtime: Runtime) -> Array:
    """x [..., C] + bias [C]."""
    y = runtime.empty(x.shape, np.float32)
    grid = blocks_for(x.size, runtime.multiprocessors)
    runtime.launch(Launch(SOURCE, "add_bias", grid, BLOCK, (x, bias, *int32(bias.size, x.size), y)))
    return y


def relu(x: Array, *, out: Array | None = None, runtime: Runtime) -> Array:
    """max(x, 0); NaN stays NaN, as in tf.nn.relu."""
    return _activate(x, "relu", out, runtime)


def relu6(x: Array, *, out: Array | None = None, runtime: Runtime) -> Array:
    """min(max(x, 0), 6), as tf.nn.relu6."""
    return _activate(x, "relu6", out, runtime)


def add_relu(shortcut: Array, residual: Array, *, out: Array | None = None, runtime: Runtime) -> Array:
    """relu(shortcut + residual): the end of slim's bottleneck."""
    y = runtime.empty(residual.shape, np.float32) if out is None else out
    add_into(runtime, shortcut, residual, "relu", math.inf, y)
    return y


def add_relu6(shortcut: Array, residual: Array, *, out: Array | None = None, runtime: Runtime) -> Array:
    """relu6(shortcut + clip(residual, -6, 6)): the end of slim's bottleneck with bounded activations."""
    y = runtime.empty(residual.shape, np.float32) if out is None else out
    add_into(runtime, shortcut, residual, "relu6", 6, y)
    return y


def add_into(
    runtime: Runtime, shortcut: Array, residual: Array, activation: str | None, bound: float, y: Array
) -> None:
    """y = activation(shortcut + clip(residual, -bound, bound)), all of one shape; y may be either input."""
    clamps = float32(bound, *bounds(activation))
    grid = blocks_for(y.size, runtime.multiprocessors)
    runtime.launch(Launch(SOURCE, "add", grid, BLOCK, (shortcut, residual, *clamps, *int32(y.size), y)))


def _activate(x: Array, activation: str, out: Array | None, runtime: Runtime) -> Array:
    y = runtime.empty(x.shape, np.float32) if out is None else out
    grid = blocks_for(x.size, runtime.multiprocessors)
    runtime.launch(Launch(SOURCE, "activate", grid, BLOCK, (x, *float32(*bounds(activation)), *int32(x.size), y)))
    return y
