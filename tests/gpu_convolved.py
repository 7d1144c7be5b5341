"""The gpu's convolutions as tests run them, on the CPU: tensors of whole numbers, and what a way makes of them."""

from functools import cache
from typing import Any

import numpy as np
from cuda_on_cpu.runtime import EmulatedRuntime
from planned import Array, whole

from resnet_ref.kernels.conv2d.gpu import Epilogue, conv2d_into, workspace_size
from resnet_ref.kernels.conv2d.tiles import Way
from resnet_ref.kernels.geometry import Window

# In each axis another size, stride, rate and padding.
ROWS, COLS = Window(3, 2, 1, 1, 2), Window(2, 1, 3, 2, 0)


@cache
def runtime_of(order: int) -> EmulatedRuntime:
    return EmulatedRuntime(order=order)


def uploaded(runtime: EmulatedRuntime, options: dict[str, Any]) -> dict[str, Any]:
    """The same, with the arrays on the device."""
    return {name: runtime.upload(a) if isinstance(a, np.ndarray) else a for name, a in options.items()}


def computed(way: Way, x: Array, w: Array, rows: Window, cols: Window, *, order: int = 0, **epilogue: Any) -> Array:
    """By the way, with the arrays of the epilogue in NumPy."""
    runtime = runtime_of(order)
    there = uploaded(runtime, epilogue)
    y = runtime.empty((x.shape[0], rows.out(x.shape[1]), cols.out(x.shape[2]), w.shape[3]), np.float32)
    needed = workspace_size(way, y.size // w.shape[3], w.shape[3])
    workspace = runtime.empty((needed,), np.float32) if needed else None
    conv2d_into(runtime, runtime.upload(x), runtime.upload(w), rows, cols, Epilogue(**there), y, way, workspace)
    return runtime.download(y)


def tensors(seed: int, x: tuple[int, ...], rows: Window, cols: Window, f: int) -> tuple[Array, Array, Window, Window]:
    """Whole numbers, and the windows."""
    rng = np.random.default_rng(seed)
    return whole(rng, *x), whole(rng, rows.size, cols.size, x[3], f), rows, cols


def with_everything(x: Array, w: Array, rows: Window, cols: Window, stride: int = 2) -> dict[str, Any]:
    """An epilogue whose every part matters, but for the bound."""
    rng = np.random.default_rng(5)
    shape = (x.shape[0], rows.out(x.shape[1]), cols.out(x.shape[2]), w.shape[3])
    # With stride 2, the last row of pixels that it reaches is followed by others, the last column is not.
    residual = whole(rng, shape[0], shape[1] * stride, shape[2] * stride - stride + 1, shape[3])
    return {"bias": whole(rng, w.shape[3]), "residual": residual, "residual_stride": stride, "activation": "relu6"}
