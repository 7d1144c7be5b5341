"""Launches global average pooling: a block for each image and group of channels."""

import numpy as np

from resnet_ref.kernels.arrays import Array
from resnet_ref.kernels.cuda.launch import BLOCK, Launch, int32, source
from resnet_ref.kernels.cuda.runtime import Runtime

WARP = 32  # channels of a block
SOURCE = source("spatial_mean/gpu.cu", WARPS=BLOCK // WARP)


def spatial_mean(x: Array, *, runtime: Runtime) -> Array:
    """[N, H, W, C] -> [N, 1, 1, C], summed in float64."""
    y = runtime.empty((x.shape[0], 1, 1, x.shape[3]), np.float32)
    spatial_mean_into(runtime, x, y)
    return y


def spatial_mean_into(runtime: Runtime, x: Array, y: Array) -> None:
    """y [N, 1, 1, C] = spatial_mean(x)."""
    n, h, w, c = x.shape
    grid = (n * -(-c // WARP), 1, 1)
    runtime.launch(Launch(SOURCE, "spatial_mean", grid, BLOCK, (x, *int32(h * w, c), y)))
