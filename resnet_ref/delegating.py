"""Interpreters that stand before others: one that passes everything on, and one that runs two side by side."""

import time
from collections.abc import Callable
from typing import Any, NamedTuple

from resnet_ref.handle import Interpreter
from resnet_ref.kernels.arrays import Array
from resnet_ref.kernels.geometry import Window


class Delegating:
    """Passes every layer on to `inner`; a subclass changes the layers it cares about."""

    def __init__(self, inner: Interpreter) -> None:
        self.inner = inner

    def conv2d(self, x: Any, scope: str, *args: Any, **kwargs: Any) -> Any:
        """As `inner` does it."""
        return self.inner.conv2d(x, scope, *args, **kwargs)

    def max_pool2d(self, x: Any, scope: str, rows: Window, cols: Window) -> Any:
        """As `inner` does it."""
        return self.inner.max_pool2d(x, scope, rows, cols)

    def subsample(self, x: Any, scope: str, factor: int) -> Any:
        """As `inner` does it."""
        return self.inner.subsample(x, scope, factor)

    def spatial_mean(self, x: Any) -> Any:
        """As `inner` does it."""
        return self.inner.spatial_mean(x)

    def add_relu(self, shortcut: Any, residual: Any, scope: str, *, bounded: bool) -> Any:
        """As `inner` does it."""
        return self.inner.add_relu(shortcut, residual, scope, bounded=bounded)

    def squeeze(self, x: Any) -> Any:
        """As `inner` does it."""
        return self.inner.squeeze(x)

    def softmax(self, x: Any) -> Any:
        """As `inner` does it."""
        return self.inner.softmax(x)


class Pair(NamedTuple):
    """One value computed twice, `a` by the first interpreter and `b` by the second."""

    a: Array
    b: Array

    @property
    def shape(self) -> tuple[int, ...]:
        """The shape of both."""
        return self.a.shape


class Paired:
    """Runs two interpreters in step, so that their end points can be compared as they are made, and none be kept.

    seconds: how long each of the two has computed.
    """

    def __init__(self, a: Interpreter, b: Interpreter) -> None:
        self.both = (a, b)
        self.seconds = [0.0, 0.0]

    def conv2d(self, x: Pair, scope: str, *args: Any, **kwargs: Any) -> Pair:
        """Both convolutions."""
        return self._run(lambda i: self.both[i].conv2d(x[i], scope, *args, **kwargs))

    def max_pool2d(self, x: Pair, scope: str, rows: Window, cols: Window) -> Pair:
        """Both poolings."""
        return self._run(lambda i: self.both[i].max_pool2d(x[i], scope, rows, cols))

    def subsample(self, x: Pair, scope: str, factor: int) -> Pair:
        """Both subsamplings."""
        return self._run(lambda i: self.both[i].subsample(x[i], scope, factor))

    def spatial_mean(self, x: Pair) -> Pair:
        """Both means."""
        return self._run(lambda i: self.both[i].spatial_mean(x[i]))

    def add_relu(self, shortcut: Pair, residual: Pair, scope: str, *, bounded: bool) -> Pair:
        """Both sums."""
        return self._run(lambda i: self.both[i].add_relu(shortcut[i], residual[i], scope, bounded=bounded))

    def squeeze(self, x: Pair) -> Pair:
        """Both squeezed."""
        return self._run(lambda i: self.both[i].squeeze(x[i]))

    def softmax(self, x: Pair) -> Pair:
        """Both softmaxes."""
        return self._run(lambda i: self.both[i].softmax(x[i]))

    def _run(self, layer: Callable[[int], Any]) -> Pair:
        values = []
        for side in (0, 1):
            start = time.perf_counter()
            values.append(layer(side))
            self.seconds[side] += time.perf_counter() - start
        return Pair(*values)
