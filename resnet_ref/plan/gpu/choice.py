"""Which tile and split compute a convolution on a gpu: by the model of conv2d/tiles.py, or by what was timed."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass

from resnet_ref.kernels.conv2d.gpu import ways
from resnet_ref.kernels.conv2d.tiles import Way
from resnet_ref.kernels.cuda.runtime import Runtime
from resnet_ref.kernels.geometry import Window

ALGORITHMS = ("auto", "tuned")
MOST_WAYS = 6  # that are timed: the model's best


@dataclass(frozen=True)
class Convolution:
    """What convolutions that cost the same have in common."""

    x: tuple[int, ...]
    w: tuple[int, ...]
    rows: Window
    cols: Window
    has_residual: bool

    @property
    def kind(self) -> str:
        """As it is remembered."""
        shapes = f"{list(self.x)} with {list(self.w)}"
        return f"{shapes}, rows {tuple(self.rows)}, cols {tuple(self.cols)}, residual {self.has_residual}"


Choose = Callable[[Convolution], Way]


def candidates(runtime: Runtime, precision: str, conv: Convolution) -> Sequence[Way]:
    """The few ways that the model thinks fastest, the first first."""
    return ways(runtime, conv.x, conv.w, conv.rows, conv.cols, precision)[:MOST_WAYS]


def by_model(runtime: Runtime, precision: str) -> Choose:
    """The first of them, the same on all devices with as many multiprocessors."""
    return lambda conv: candidates(runtime, precision, conv)[0]
