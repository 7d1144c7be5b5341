"""A convolution that a Plan wants prepared, and what every method of computing it needs."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np

from resnet_ref.kernels.activation import bounds
from resnet_ref.kernels.arrays import Array
from resnet_ref.kernels.geometry import Window
from resnet_ref.kernels.vector.emit import float_bits
from resnet_ref.kernels.vector.memory import floats
from resnet_ref.kernels.vector.step import Buffer, Map, Memory, Step, Target

Folded = Callable[[], tuple[Array, Array]]


@dataclass(frozen=True, eq=False)
class Convolution:
    """y = activation(clip(conv(x, w) + bias, -bound, bound) + residual[:, ::s, ::s]).

    folded: w [KH, KW, C, F] and bias [F], batch norm already in them; called only where they are not packed yet.
    """

    name: str
    x: Map
    y: Map
    rows: Window
    cols: Window
    folded: Folded
    activation: str | None
    residual: Map | None = None
    residual_stride: int = 1
    bound: float | None = None

    @property
    def kind(self) -> str:
        """What convolutions that cost the same have in common."""
        x, y = self.x, self.y
        shapes = f"{x.n}x{x.h}x{x.w}x{x.c} to {y.h}x{y.w}x{y.c}"
        return f"{shapes}, rows {tuple(self.rows)}, cols {tuple(self.cols)}, residual {self.residual is not None}"

    @property
    def reads(self) -> tuple[Buffer, ...]:
        """x's buffer, and the residual's."""
        return (self.x.buffer,) if self.residual is None else (self.x.buffer, self.residual.buffer)

    @property
    def flops(self) -> int:
        """A multiply-add counted as two."""
        return 2 * self.y.pixels * self.y.c * self.rows.size * self.cols.size * self.x.c


Method = Callable[[Target, Convolution], Sequence[Step]]  # a way to compute it


def packed(target: Target, conv: Convolution, method: str, layout: Callable[[Array], Array]) -> tuple[Array, Array]:
    """(weights as `layout` makes them of w [KH, KW, C, F], bias), from this call or an earlier one."""
    key = (conv.name, method)
    if key not in target.packed:
        w, bias = conv.folded()
        wide = floats(conv.y.pitch)
        wide[: len(bias)] = bias
        target.packed[key] = (layout(w), wide)
    return target.packed[key]


def tap_places(conv: Convolution, memory: Memory) -> Array:
    """Where each output's taps lie, in floats from the memory's base: [pixels of y, taps]."""
    places = conv.x.taps(memory.index(conv.x), conv.rows, conv.cols, memory.index(memory.zeros))
    return places.reshape(conv.y.pixels, -1)


def epilogue(conv: Convolution | None) -> dict[str, int]:
    """What follows the sums; without a convolution nothing."""
    low, high = bounds(None if conv is None else conv.activation)
    bound = np.inf if conv is None or conv.bound is None else conv.bound
    return {
        "has_residual": int(conv is not None and conv.residual is not None),
        "has_bounds": int(np.isfinite(high) or np.isfinite(bound)),
        "low": float_bits(low),
        "high": float_bits(high),
        "bound": float_bits(bound),
    }


def residual_place(memory: Memory, conv: Convolution, most: int) -> dict[str, int]:
    """Where the residual is; most: pixels that one entry of a shared table must serve."""
    residual = conv.residual
    if residual is None:
        return {"residual": 0, "residual_step": 0, "residual_table": 0, "residual_table_step": 0}
    if conv.residual_stride == 1:
        linear = memory.table(np.arange(most) * residual.pitch)
        start = memory.address(residual)
        return {
            "residual": start,
            "residual_step": residual.step,
            "residual_table": linear,
            "residual_table_step": 0,
        }
    places = memory.table(memory.index(residual) + residual.strided(conv.residual_stride))
    return {"residual": memory.base, "residual_step": 0, "residual_table": places, "residual_table_step": 4}
