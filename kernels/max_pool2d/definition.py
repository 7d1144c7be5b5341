"""Max pooling: the largest of the values under the window, channel by channel."""

import numpy as np

from resnet_ref.kernels.arrays import Array
from resnet_ref.kernels.geometry import Window


def max_pool2d(x: Array, rows: Window, cols: Window) -> Array:
    """[N, H, W, C] -> [N, OH, OW, C]. Padding and NaN never win; where nothing else is there, the lowest float does."""
    _, h, w, _ = x.shape
    lowest = np.finfo(x.dtype).min
    pads = ((0, 0), (rows.before, rows.after), (cols.before, cols.after), (0, 0))
    padded = np.pad(x, pads, constant_values=lowest)
    patches = padded[:, rows.taps(h)[:, None, :, None], cols.taps(w)[None, :, None, :]]  # [N, OH, OW, KH, KW, C]
    return np.fmax.reduce(patches, axis=(3, 4), initial=lowest)
