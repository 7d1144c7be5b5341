"""A network as TorchScript, which PyTorch reads."""

import math
import os
from collections.abc import Mapping
from typing import Any

import numpy as np
import torch
from torch.nn import functional

from resnet_ref.bench.nchw import Float32, Nchw
from resnet_ref.kernels.arrays import Array
from resnet_ref.kernels.geometry import Window
from resnet_ref.network import Network


class TorchNet(Nchw):
    """Runs PyTorch's operations; a value's node is its tensor. Weights lie as the images do, channels last, in `dtype`.

    They are laid out once: what PyTorch does to a constant while it is traced would be done again in every run.
    """

    def __init__(self, weights: Mapping[str, Array], dtype: Any = torch.float32) -> None:
        super().__init__(weights)
        self._dtype = dtype
        self._laid_out: dict[str, tuple[Any, Any]] = {}

    def convolve(self, x: Any, scope: str, weights: Float32, bias: Float32, rows: Window, cols: Window) -> Any:
        """conv2d, with a pad before it only where the two sides differ."""
        padding = (rows.before, cols.before)
        if padding != (rows.after, cols.after):
            x, padding = functional.pad(x, (cols.before, cols.after, rows.before, rows.after)), (0, 0)
        if scope not in self._laid_out:
            kernel = torch.from_numpy(np.ascontiguousarray(weights.transpose(0, 2, 3, 1))).to(self._dtype)
            self._laid_out[scope] = kernel.permute(0, 3, 1, 2), torch.from_numpy(bias).to(self._dtype)
        stride, rate = (rows.stride, cols.stride), (rows.rate, cols.rate)
        return functional.conv2d(x, *self._laid_out[scope], stride, padding, rate)

    def pool(self, x: Any, size: tuple[int, ...], rows: Window, cols: Window) -> Any:
        """max_pool2d; a pad before it costs a copy, which most often ceil_mode spares."""
        padding, ceil = (rows.before, cols.before), True
        if not all(_ceils(*axis) for axis in zip(size, (rows, cols), strict=True)):
            sides = (cols.before, cols.after, rows.before, rows.after)
            x, padding, ceil = functional.pad(x, sides, value=-math.inf), (0, 0), False
        sizes, stride, rate = (rows.size, cols.size), (rows.stride, cols.stride), (rows.rate, cols.rate)
        return functional.max_pool2d(x, sizes, stride, padding, rate, ceil)

    def mean(self, x: Any) -> Any:
        """mean."""
        return x.mean((2, 3), keepdim=True)

    def add(self, a: Any, b: Any) -> Any:
        """add."""
        return a + b

    def clamp(self, x: Any, low: float, high: float) -> Any:
        """relu or clamp."""
        return functional.relu(x) if (low, high) == (0, math.inf) else torch.clamp(x, low, high)

    def flatten(self, x: Any) -> Any:
        """flatten."""
        return x.flatten(1)

    def normalise(self, x: Any) -> Any:
        """softmax."""
        return torch.softmax(x, 1)


def _ceils(n: int, window: Window) -> bool:
    """Whether PyTorch's ceil_mode, given the padding before, walks an axis of n positions as the window does."""
    reach = n + 2 * window.before - window.extent
    out = -(-reach // window.stride) + 1
    if (out - 1) * window.stride >= n + window.before:  # a window must begin inside
        out -= 1
    return 2 * window.before <= window.size and out == window.out(n)


def write_torch(
    network: Network,
    weights: Mapping[str, Array],
    size: tuple[int, int],
    path: str | os.PathLike[str],
    dtype: Any = torch.float32,
) -> None:
    """Write the network, traced, for images [N, C, height, width], any N -> (result, logits) or (result,), in float32.

    dtype: of weights, and of all between images and outputs.
    """
    shape = (1, *size, network.channels)
    images = torch.zeros(shape).permute(0, 3, 1, 2)
    net = TorchNet(weights, dtype)

    def outputs(x: Any) -> tuple[Any, ...]:
        if dtype == torch.float32:
            return tuple(net.outputs(network, shape, x).values())
        return tuple(value.float() for value in net.outputs(network, shape, x.to(dtype)).values())

    with torch.inference_mode():
        outputs(images)
        torch.jit.trace(outputs, images, check_trace=False).save(os.fspath(path))


def write_torch_bf16(
    network: Network, weights: Mapping[str, Array], size: tuple[int, int], path: str | os.PathLike[str]
) -> None:
    """The same, in bfloat16."""
    write_torch(network, weights, size, path, torch.bfloat16)
