"""The interpreter that computes each layer as it is described: the meaning of a network."""

from collections.abc import Mapping, MutableMapping
from typing import Any

import numpy as np

from resnet_ref.arg_scope import BatchNorm
from resnet_ref.kernels import Tier
from resnet_ref.kernels.arrays import Array
from resnet_ref.kernels.geometry import Window


class Eager:
    """Computes on one tier, in one dtype, with variables from `weights` (slim's name -> array, all present).

    Where batch norm is in training mode, `updates` receives the new moving_mean and moving_variance by name.
    """

    def __init__(
        self,
        tier: Tier,
        weights: Mapping[str, Array],
        dtype: "np.dtype[Any]",
        updates: MutableMapping[str, Array] | None = None,
    ) -> None:
        self.tier = tier
        self.weights = weights
        self.dtype = dtype
        self.updates = updates

    def conv2d(
        self,
        x: Array,
        scope: str,
        depth: int,
        rows: Window,
        cols: Window,
        *,
        normalizer: BatchNorm | None,
        activation: str | None,
    ) -> Array:
        """Convolution, batch norm or biases, activation."""
        weights = self._variable(f"{scope}/weights")
        if normalizer is None:
            return self.tier.conv2d(
                x, weights, rows, cols, bias=self._variable(f"{scope}/biases"), activation=activation
            )
        return self._batch_norm(self.tier.conv2d(x, weights, rows, cols), f"{scope}/BatchNorm", normalizer, activation)

    def max_pool2d(self, x: Array, scope: str, rows: Window, cols: Window) -> Array:
        """Max pooling."""
        return self.tier.max_pool2d(x, rows, cols)

    def subsample(self, x: Array, scope: str, factor: int) -> Array:
        """Every factor-th row and column."""
        return self.tier.subsample(x, factor)

    def spatial_mean(self, x: Array) -> Array:
        """Mean over height and width."""
        return self.tier.spatial_mean(x)

    def add_relu(self, shortcut: Array, residual: Array, scope: str, *, bounded: bool) -> Array:
        """The end of a residual unit."""
        return self.tier.add_relu6(shortcut, residual) if bounded else self.tier.add_relu(shortcut, residual)

    def squeeze(self, x: Array) -> Array:
        """[N, 1, 1, C] -> [N, C]."""
        return x.reshape(x.shape[0], x.shape[3])

    def softmax(self, x: Array) -> Array:
        """Softmax over the last axis."""
        return self.tier.softmax(x)

    def _batch_norm(self, y: Array, scope: str, normalizer: BatchNorm, activation: str | None) -> Array:
        """Normalises the convolution's output in place; nobody else has seen it."""
        gamma = self._variable(f"{scope}/gamma") if normalizer.scale else None
        beta = self._variable(f"{scope}/beta")
        mean, variance = self._variable(f"{scope}/moving_mean"), self._variable(f"{scope}/moving_variance")
        if normalizer.is_training:
            batch_mean, batch_variance = self.tier.batch_statistics(y)
            if self.updates is not None:
                fed = self.tier.unbiased(batch_variance, y.size // y.shape[3])
                update = self.tier.moving_average
                self.updates[f"{scope}/moving_mean"] = update(mean, batch_mean, normalizer.decay)
                self.updates[f"{scope}/moving_variance"] = update(variance, fed, normalizer.decay)
            mean, variance = batch_mean, batch_variance
        return self.tier.batch_norm(y, gamma, beta, mean, variance, normalizer.epsilon, activation=activation, out=y)

    def _variable(self, name: str) -> Array:
        return self.tier.arrays.take(self.weights[name], self.dtype)
