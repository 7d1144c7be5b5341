"""slim's layers in a few lines of float64 NumPy that share nothing with the package: what the tests compare with."""

from collections.abc import Mapping
from typing import Any

import numpy as np
import numpy.typing as npt

Array = npt.NDArray[Any]
EPSILON = 1e-5


def convolve(x: Array, w: Array, stride: int = 1, rate: int = 1) -> Array:
    """slim's conv2d_same with an odd kernel: half of the effective kernel as padding on each side, then VALID."""
    size = w.shape[0]
    pad = (size - 1) * rate // 2
    padded = np.pad(x.astype(np.float64), ((0, 0), (pad, pad), (pad, pad), (0, 0)))
    h, w_ = x.shape[1:3]
    rows, cols = (np.arange(0, n, stride) for n in (h, w_))
    taps = [
        np.einsum("nhwc,cf->nhwf", padded[:, rows + i * rate][:, :, cols + j * rate], w[i, j].astype(np.float64))
        for i in range(size)
        for j in range(size)
    ]
    return np.asarray(sum(taps))


def layer(
    x: Array, variables: Mapping[str, Array], scope: str, stride: int = 1, rate: int = 1, high: float | None = np.inf
) -> Array:
    """Convolution, batch norm by the moving averages (or biases), and a clip to [0, high] unless high is None."""
    v = {
        name.removeprefix(f"{scope}/"): a.astype(np.float64) for name, a in variables.items() if name.startswith(scope)
    }
    y = convolve(x, v["weights"], stride, rate)
    if "BatchNorm/beta" in v:
        scale = v.get("BatchNorm/gamma", 1) / np.sqrt(v["BatchNorm/moving_variance"] + EPSILON)
        y = (y - v["BatchNorm/moving_mean"]) * scale + v["BatchNorm/beta"]
    else:
        y = y + v["biases"]
    return y if high is None else np.clip(y, 0, high)


def bottleneck(
    x: Array, variables: Mapping[str, Array], scope: str, stride: int = 1, rate: int = 1, bounded: bool = False
) -> Array:
    """The residual unit, with every endpoint's activation as slim has it; the hidden layers end in a ReLU."""
    shortcut = x[:, ::stride, ::stride]
    if f"{scope}/shortcut/weights" in variables:
        shortcut = layer(shortcut, variables, f"{scope}/shortcut", high=6 if bounded else None)
    y = layer(x, variables, f"{scope}/conv1")
    y = layer(y, variables, f"{scope}/conv2", stride, rate)
    y = layer(y, variables, f"{scope}/conv3", high=None)
    return np.asarray(np.clip(shortcut + np.clip(y, -6, 6), 0, 6) if bounded else np.maximum(shortcut + y, 0))
