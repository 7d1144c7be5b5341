"""Convolution by im2col: lay out what each output reads as a row of a matrix, then multiply.

    x [N, H, W, C]  --im2col-->  [N*OH*OW, KH*KW*C]  @  [KH*KW*C, F]  -->  y [N, OH, OW, F]

Atrous convolution is this same code: `rate` spreads the taps (see atrous.md).
"""

import numpy as np

from resnet_ref.kernels.activation import bounds
from resnet_ref.kernels.arrays import Array, emit
from resnet_ref.kernels.geometry import Window


def im2col(x: Array, rows: Window, cols: Window) -> Array:
    """[N, H, W, C] -> [N*OH*OW, KH*KW*C]: row (n, oy, ox) holds the taps of that output, in HWI order."""
    n, h, w, c = x.shape
    padded = np.pad(x, ((0, 0), (rows.before, rows.after), (cols.before, cols.after), (0, 0)))
    patches = padded[:, rows.taps(h)[:, None, :, None], cols.taps(w)[None, :, None, :]]  # [N, OH, OW, KH, KW, C]
    return patches.reshape(n * rows.out(h) * cols.out(w), rows.size * cols.size * c)


def conv2d(
    x: Array,
    w: Array,
    rows: Window,
    cols: Window,
    *,
    bias: Array | None = None,
    residual: Array | None = None,
    residual_stride: int = 1,
    activation: str | None = None,
    out: Array | None = None,
) -> Array:
    """activation(conv(x, w) + bias + residual[:, ::s, ::s]); x [N, H, W, C], w [KH, KW, C, F] -> [N, OH, OW, F]."""
    n, h, width, _ = x.shape
    y = im2col(x, rows, cols) @ w.reshape(-1, w.shape[3])
    y = y.reshape(n, rows.out(h), cols.out(width), w.shape[3])
    if bias is not None:
        y = y + bias
    if residual is not None:
        y = y + residual[:, ::residual_stride, ::residual_stride]
    return emit(np.clip(y, *bounds(activation)), out)
