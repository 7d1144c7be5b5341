"""What every rung computes, and what it makes of it before the clock runs."""

from collections.abc import Callable
from typing import NamedTuple

from resnet_ref.kernels.arrays import Array
from resnet_ref.kernels.geometry import Window


class Problem(NamedTuple):
    """activation(conv(x, w) + bias + residual[:, ::s, ::s]), as in Tier.conv2d; NumPy arrays of float32, contiguous."""

    x: Array
    w: Array
    rows: Window
    cols: Window
    bias: Array | None = None
    residual: Array | None = None
    residual_stride: int = 1
    activation: str | None = None

    @property
    def shape(self) -> tuple[int, int, int, int]:
        """[N, OH, OW, F]."""
        n, h, w, _ = self.x.shape
        return n, self.rows.out(h), self.cols.out(w), self.w.shape[3]

    @property
    def pixels(self) -> int:
        """N * OH * OW."""
        n, oh, ow, _ = self.shape
        return n * oh * ow

    @property
    def flops(self) -> int:
        """A multiply-add counted as two."""
        return 2 * self.pixels * self.w.size


class Prepared(NamedTuple):
    """A problem with its memory, tables and weights laid out. run: computes, as often as it is called. result: what the
    last run computed, [N, OH, OW, F]."""

    run: Callable[[], None]
    result: Callable[[], Array]
