"""Launches batch normalisation: in inference, and the statistics of training."""

import numpy as np

from resnet_ref.kernels.activation import bounds
from resnet_ref.kernels.arrays import Array
from resnet_ref.kernels.cuda.launch import BLOCK, Launch, float32, int32, source
from resnet_ref.kernels.cuda.runtime import Runtime

WARP = 32  # channels of a block
TILE_ROWS = 32  # rows of a block that normalises
PIECE_ROWS = 512  # rows of a partial sum; fixed, so that results do not depend on the device
SOURCE = source("batch_norm/gpu.cu", WARPS=BLOCK // WARP, TILE_ROWS=TILE_ROWS, PIECE_ROWS=PIECE_ROWS)


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
    runtime: Runtime,
) -> Array:
    """activation((x - mean) * (gamma / sqrt(variance + epsilon)) + beta) over the last axis; all [C]."""
    y = runtime.empty(x.shape, np.float32) if out is None else out
    rows, channels = _matrix(x)
    numbers = (gamma, beta, mean, variance, *float32(epsilon, *bounds(activation)))
    grid = _grid(-(-rows // TILE_ROWS), channels)
    runtime.launch(Launch(SOURCE, "batch_norm", grid, BLOCK, (x, *numbers, *int32(rows, channels), y)))
    return y


def batch_statistics(x: Array, *, runtime: Runtime) -> tuple[Array, Array]:
    """Mean and biased variance [C] of x [N, H, W, C] over N, H, W; summed in float64, returned in float32."""
    rows, channels = _matrix(x)
    pieces = -(-rows // PIECE_ROWS)
    partial = runtime.empty((pieces, channels), np.float64)
    wide = runtime.empty((channels,), np.float64)
    mean, variance = (runtime.empty((channels,), np.float32) for _ in range(2))

    def add(kernel: str, *arrays: Array) -> None:
        arguments = (*arrays, *int32(rows, channels), partial)
        runtime.launch(Launch(SOURCE, kernel, _grid(pieces, channels), BLOCK, arguments))

    def divide(rounded: Array) -> None:
        arguments = (partial, *int32(pieces, channels, rows), wide, rounded)
        runtime.launch(Launch(SOURCE, "divide_sums", _grid(1, channels), BLOCK, arguments))

    add("sum_values", x)
    divide(mean)
    add("sum_squares", x, wide)
    divide(variance)
    return mean, variance


def moving_average(moving: Array, batch: Array, decay: float, *, runtime: Runtime) -> Array:
    """moving - (moving - batch) * (1 - decay), both [C] (assign_moving_average without zero debias)."""
    y = runtime.empty(moving.shape, np.float32)
    arguments = (moving, batch, *float32(1 - decay), *int32(y.size), y)
    runtime.launch(Launch(SOURCE, "moving_average", (-(-y.size // BLOCK), 1, 1), BLOCK, arguments))
    return y


def unbiased(variance: Array, count: int, *, runtime: Runtime) -> Array:
    """Bessel's correction: variance * count / (count - 1), which TensorFlow feeds to moving_variance."""
    y = runtime.empty(variance.shape, np.float32)
    arguments = (variance, *float32(count / max(count - 1, 1)), *int32(y.size), y)
    runtime.launch(Launch(SOURCE, "unbiased", (-(-y.size // BLOCK), 1, 1), BLOCK, arguments))
    return y


def _matrix(x: Array) -> tuple[int, int]:
    """Rows and channels of x [N, H, W, C] as a matrix."""
    return x.size // x.shape[3], x.shape[3]


def _grid(pieces: int, channels: int) -> tuple[int, int, int]:
    """A block for each piece of the rows and group of channels."""
    return pieces * -(-channels // WARP), 1, 1
