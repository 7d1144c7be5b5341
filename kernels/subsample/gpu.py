"""Launches subsampling: a strided copy."""

import numpy as np

from resnet_ref.kernels.arrays import Array
from resnet_ref.kernels.cuda.launch import BLOCK, Launch, blocks_for, int32, source
from resnet_ref.kernels.cuda.runtime import Runtime
from resnet_ref.kernels.geometry import subsampled

SOURCE = source("subsample/gpu.cu")


def subsample(x: Array, factor: int, *, runtime: Runtime) -> Array:
    """[N, H, W, C] -> [N, ceil(H / factor), ceil(W / factor), C]."""
    n, h, w, c = x.shape
    y = runtime.empty((n, subsampled(h, factor), subsampled(w, factor), c), np.float32)
    subsample_into(runtime, x, factor, y)
    return y


def subsample_into(runtime: Runtime, x: Array, factor: int, y: Array) -> None:
    """y [N, OH, OW, C] = x[:, ::factor, ::factor]."""
    sizes = int32(*x.shape[1:], factor, *y.shape[1:3], y.size)
    grid = blocks_for(y.size, runtime.multiprocessors)
    runtime.launch(Launch(SOURCE, "subsample", grid, BLOCK, (x, *sizes, y)))
