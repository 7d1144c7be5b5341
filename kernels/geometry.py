"""Where a kernel's taps fall: the only padding and output-size arithmetic in the project.

A `Window` describes one axis. An output position `o` reads the `size` input positions

    o * stride - before + k * rate,    k = 0 .. size - 1

and whatever lies outside the input is padding:

    size 3, rate 2, stride 1, before 2        . . | a b c d e | . .
    o = 0 reads                               x   x   x
    o = 1 reads                                 x   x   x
"""

from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from resnet_ref.errors import ShapeError
from resnet_ref.kernels.scalars import positive


class Window(NamedTuple):
    """How a kernel walks one axis: `size` taps `rate` apart, moved by `stride`, with explicit zero padding."""

    size: int
    stride: int = 1
    rate: int = 1
    before: int = 0
    after: int = 0

    @property
    def extent(self) -> int:
        """Positions from the first tap to the last, both counted: slim's effective kernel size."""
        return (self.size - 1) * self.rate + 1

    @property
    def is_identity(self) -> bool:
        """Whether output `o` reads input `o` and nothing else."""
        return self == (1, 1, self.rate, 0, 0)

    def out(self, n: int) -> int:
        """Output positions for `n` input positions; ShapeError where not even one window fits, or is none."""
        _steps(self.size, self.stride, self.rate)
        if self.before < 0 or self.after < 0:
            raise ShapeError(f"padding must not be negative, got {self.before} before and {self.after} after")
        room = n + self.before + self.after - self.extent
        if n < 1 or room < 0:
            raise ShapeError(
                f"a window of {self.extent} ({self.size} taps, rate {self.rate}) does not fit {n} input positions "
                f"padded by {self.before} + {self.after}; use a larger input, a smaller kernel or rate, or SAME padding"
            )
        return room // self.stride + 1

    def taps(self, n: int) -> NDArray[np.intp]:
        """Positions [out, size] that each output reads, counted from the start of the PADDED input."""
        return self.stride * np.arange(self.out(n))[:, None] + self.rate * np.arange(self.size)

    def reads(self, out: int) -> NDArray[np.intp]:
        """Positions [size] that output `out` reads, counted from the start of the input; outside of it is padding."""
        return out * self.stride - self.before + self.rate * np.arange(self.size)


def same(n: int, size: int, stride: int = 1, rate: int = 1) -> Window:
    """TensorFlow's SAME: ceil(n / stride) outputs; the odd element of padding goes after (kernel_shape_util.cc)."""
    n = positive("n", n)
    size, stride, rate = _steps(size, stride, rate)
    extent = (size - 1) * rate + 1
    total = max((-(-n // stride) - 1) * stride + extent - n, 0)
    return Window(size, stride, rate, total // 2, total - total // 2)


def valid(size: int, stride: int = 1, rate: int = 1) -> Window:
    """TensorFlow's VALID: no padding."""
    return Window(*_steps(size, stride, rate))


def fixed(size: int, stride: int = 1, rate: int = 1) -> Window:
    """slim's conv2d_same for stride > 1: extent - 1 of padding whatever the input's size, then VALID."""
    size, stride, rate = _steps(size, stride, rate)
    total = (size - 1) * rate
    return Window(size, stride, rate, total // 2, total - total // 2)


def padded(padding: str, n: int, size: int, stride: int = 1, rate: int = 1) -> Window:
    """The window of a padding by its name, "SAME", "VALID" or "FIXED", for `n` positions; ShapeError for another."""
    if padding == "SAME":
        return same(n, size, stride, rate)
    if padding == "VALID":
        return valid(size, stride, rate)
    if padding == "FIXED":
        return fixed(size, stride, rate)
    raise ShapeError(f'padding must be "SAME", "VALID" or "FIXED", got {padding!r}')


def subsampled(n: int, factor: int) -> int:
    """Length of `x[::factor]` for `n` positions."""
    return valid(1, factor).out(n)


def _steps(size: int, stride: int, rate: int) -> tuple[int, int, int]:
    return positive("size", size), positive("stride", stride), positive("rate", rate)
