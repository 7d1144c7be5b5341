"""Global average pooling: the mean over height and width, kept as two axes of length one."""

import numpy as np

from resnet_ref.kernels.arrays import Array


def spatial_mean(x: Array) -> Array:
    """[N, H, W, C] -> [N, 1, 1, C], summed in float64."""
    return x.mean(axis=(1, 2), keepdims=True, dtype=np.float64).astype(x.dtype)
