"""Batch normalisation (Ioffe and Szegedy 2015, arXiv:1502.03167), as TensorFlow's FusedBatchNorm computes it."""

import numpy as np

from resnet_ref.kernels.activation import bounds
from resnet_ref.kernels.arrays import Array, emit


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
) -> Array:
    """activation((x - mean) * (gamma / sqrt(variance + epsilon)) + beta) over the last axis; all [C]."""
    scale = 1 / np.sqrt(variance + x.dtype.type(epsilon))
    if gamma is not None:
        scale = scale * gamma
    return emit(np.clip((x - mean) * scale + beta, *bounds(activation)), out)


def batch_statistics(x: Array) -> tuple[Array, Array]:
    """Mean and biased variance [C] of x [N, H, W, C] over N, H, W; summed in float64, returned in x's dtype."""
    mean = x.mean(axis=(0, 1, 2), dtype=np.float64)
    variance = np.square(x - mean).mean(axis=(0, 1, 2))
    return mean.astype(x.dtype), variance.astype(x.dtype)


def moving_average(moving: Array, batch: Array, decay: float) -> Array:
    """moving - (moving - batch) * (1 - decay), in moving's dtype (assign_moving_average without zero debias)."""
    return moving - (moving - batch) * moving.dtype.type(1 - decay)


def unbiased(variance: Array, count: int) -> Array:
    """Bessel's correction: variance * count / (count - 1), which TensorFlow feeds to moving_variance."""
    return variance * variance.dtype.type(count / max(count - 1, 1))
