"""What the peers' graphs have in common: channels before rows and columns, and batch norm folded into convolutions.

A subclass says what each operation is in its own graph; what a network is, it is told by the description.
"""

from abc import ABC, abstractmethod
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from resnet_ref.arg_scope import BatchNorm
from resnet_ref.handle import Handle
from resnet_ref.kernels.activation import bounds
from resnet_ref.kernels.arrays import Array
from resnet_ref.kernels.geometry import Window
from resnet_ref.network import Network
from resnet_ref.plan.folding import folded

Float32 = NDArray[np.float32]


@dataclass(frozen=True, eq=False)
class Value:
    """A value of the graph. shape: as the description counts, [N, H, W, C], though `node` is [N, C, H, W]."""

    shape: tuple[int, ...]
    node: Any


class Nchw(ABC):
    """An interpreter (see `handle`) that makes a graph of nodes, for inference; `weights`: slim's name -> array."""

    def __init__(self, weights: Mapping[str, Array]) -> None:
        self.weights = weights

    def outputs(self, network: Network, shape: tuple[int, ...], node: Any) -> dict[str, Any]:
        """Make the graph of a network for images [N, H, W, C], which are `node`: {"result": what a model returns} and,
        where there are classes, {"logits"}."""
        net, end_points = network.describe(Handle(self, Value(shape, node)))
        made = {"result": end_points.get("predictions", net.value).node}
        if network.num_classes:
            made["logits"] = end_points[f"{network.scope}/logits"].node
        return made

    def conv2d(
        self,
        x: Value,
        scope: str,
        depth: int,
        rows: Window,
        cols: Window,
        *,
        normalizer: BatchNorm | None,
        activation: str | None,
    ) -> Value:
        """A convolution with a bias, and what bounds its output."""
        weights, bias = folded(self.weights, scope, normalizer)
        node = self.convolve(x.node, scope, np.ascontiguousarray(weights.transpose(3, 2, 0, 1)), bias, rows, cols)
        return Value(_walked(x, rows, cols, depth), self._activated(node, activation))

    def max_pool2d(self, x: Value, scope: str, rows: Window, cols: Window) -> Value:
        """Max pooling."""
        return Value(_walked(x, rows, cols, x.shape[3]), self.pool(x.node, x.shape[1:3], rows, cols))

    def subsample(self, x: Value, scope: str, factor: int) -> Value:
        """A pooling of one pixel: the peers keep their own layouts through it, which a slice would undo."""
        window = Window(1, factor)
        return x if factor == 1 else self.max_pool2d(x, scope, window, window)

    def spatial_mean(self, x: Value) -> Value:
        """Mean over height and width."""
        return Value((x.shape[0], 1, 1, x.shape[3]), self.mean(x.node))

    def add_relu(self, shortcut: Value, residual: Value, scope: str, *, bounded: bool) -> Value:
        """The end of a residual unit."""
        added = self.add(shortcut.node, self.clamp(residual.node, -6, 6) if bounded else residual.node)
        return Value(residual.shape, self._activated(added, "relu6" if bounded else "relu"))

    def squeeze(self, x: Value) -> Value:
        """[N, C, 1, 1] -> [N, C]."""
        return Value((x.shape[0], x.shape[3]), self.flatten(x.node))

    def softmax(self, x: Value) -> Value:
        """Softmax over the channels, which here are the second axis."""
        return Value(x.shape, self.normalise(x.node))

    def _activated(self, node: Any, activation: str | None) -> Any:
        return node if activation is None else self.clamp(node, *bounds(activation))

    @abstractmethod
    def convolve(self, x: Any, scope: str, weights: Float32, bias: Float32, rows: Window, cols: Window) -> Any:
        """Convolution by weights [out, in, KH, KW] and bias [out], zeros around."""

    @abstractmethod
    def pool(self, x: Any, size: tuple[int, ...], rows: Window, cols: Window) -> Any:
        """Max pooling of maps of `size` (height, width); what lies outside never wins."""

    @abstractmethod
    def mean(self, x: Any) -> Any:
        """Mean over the last two axes, kept as 1."""

    @abstractmethod
    def add(self, a: Any, b: Any) -> Any:
        """Sum."""

    @abstractmethod
    def clamp(self, x: Any, low: float, high: float) -> Any:
        """min(max(x, low), high); high may be infinite."""

    @abstractmethod
    def flatten(self, x: Any) -> Any:
        """Without the last two axes, which are 1."""

    @abstractmethod
    def normalise(self, x: Any) -> Any:
        """Softmax over axis 1."""


def _walked(x: Value, rows: Window, cols: Window, depth: int) -> tuple[int, ...]:
    n, h, w, _ = x.shape
    return (n, rows.out(h), cols.out(w), depth)
