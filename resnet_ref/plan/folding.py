"""Batch norm in inference is a scale and a shift of each channel: it goes into the weights before it, in float64.

(conv(x, w) - mean) * s + beta  =  conv(x, w * s) + (beta - mean * s),      s = gamma / sqrt(variance + epsilon)
"""

from collections.abc import Mapping

import numpy as np

from resnet_ref.arg_scope import BatchNorm
from resnet_ref.kernels.arrays import Array


def folded(weights: Mapping[str, Array], scope: str, normalizer: BatchNorm | None) -> tuple[Array, Array]:
    """(w [KH, KW, C, F], bias [F]) in float32 of the convolution whose variables are under `scope`."""
    w = np.asarray(weights[f"{scope}/weights"])
    if normalizer is None:
        return w.astype(np.float32), np.asarray(weights[f"{scope}/biases"], np.float32)
    norm = {
        name: np.asarray(weights[f"{scope}/BatchNorm/{name}"], np.float64)
        for name in ("beta", "moving_mean", "moving_variance")
    }
    gamma = np.asarray(weights[f"{scope}/BatchNorm/gamma"], np.float64) if normalizer.scale else 1.0
    scale = gamma / np.sqrt(norm["moving_variance"] + normalizer.epsilon)
    bias = norm["beta"] - norm["moving_mean"] * scale
    scaled = np.empty(w.shape, np.float32)
    np.multiply(w, scale, out=scaled, dtype=np.float64, casting="same_kind")  # rounded piece by piece
    return scaled, bias.astype(np.float32)
