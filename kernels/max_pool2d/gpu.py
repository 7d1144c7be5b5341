"""Launches max pooling: a thread for each output."""

import numpy as np

from resnet_ref.kernels.arrays import Array
from resnet_ref.kernels.cuda.launch import BLOCK, Launch, blocks_for, int32, source
from resnet_ref.kernels.cuda.runtime import Runtime
from resnet_ref.kernels.geometry import Window

SOURCE = source("max_pool2d/gpu.cu")


def max_pool2d(x: Array, rows: Window, cols: Window, *, runtime: Runtime) -> Array:
    """[N, H, W, C] -> [N, OH, OW, C]. Padding and NaN never win; where nothing else is there, the lowest float does."""
    n, h, w, c = x.shape
    y = runtime.empty((n, rows.out(h), cols.out(w), c), np.float32)
    max_pool2d_into(runtime, x, rows, cols, y)
    return y


def max_pool2d_into(runtime: Runtime, x: Array, rows: Window, cols: Window, y: Array) -> None:
    """y [N, OH, OW, C] = max_pool2d(x, rows, cols)."""
    windows = [number for axis in (rows, cols) for number in (axis.size, axis.stride, axis.rate, axis.before)]
    sizes = int32(*x.shape[1:], *windows, *y.shape[1:3], y.size)
    grid = blocks_for(y.size, runtime.multiprocessors)
    runtime.launch(Launch(SOURCE, "max_pool2d", grid, BLOCK, (x, *sizes, y)))
