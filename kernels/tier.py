"""One device's kernels under the names and signatures that all tiers share; arguments are checked here, once."""

from collections.abc import Callable
from functools import cached_property
from types import ModuleType, SimpleNamespace
from typing import Any

import numpy as np
from numpy.typing import DTypeLike

from resnet_ref.errors import DeviceError, ShapeError
from resnet_ref.kernels.activation import bounds
from resnet_ref.kernels.arrays import Array, Arrays, HostArrays
from resnet_ref.kernels.cuda.arrays import DeviceArrays
from resnet_ref.kernels.cuda.runtime import Runtime
from resnet_ref.kernels.geometry import Window, subsampled

_OPTIONAL = ("bias", "gamma", "out")


class Tier:
    """The kernels of one device, from `kernels.on(device)`.

    Activations are NHWC arrays, convolution weights HWIO, per-channel numbers [C]. `dtypes` names what the device
    computes in; every array of a call has one of them, the same for all. Inputs are not modified, unless given as
    `out` too: the pointwise kernels and batch_norm may write over their input. ShapeError where something does not fit.
    """

    def __init__(
        self,
        device: str,
        load: Callable[[], SimpleNamespace],
        dtypes: tuple[str, ...],
        threads: int | None = None,
        runtime: Runtime | None = None,
        precision: str | None = None,
    ) -> None:
        """load: the kernels by name, which take `threads` or `runtime`, where it is given, by name. precision: of
        convolutions, where their kernel takes it."""
        self.device = device
        self.dtypes = dtypes
        self.runtime = runtime
        self.precision = precision
        self.arrays: Arrays = HostArrays(device) if runtime is None else DeviceArrays(runtime)
        self._load = load
        self._threads = threads
        options = {"threads": threads, "runtime": runtime}
        self._options = {name: option for name, option in options.items() if option is not None}
        # The tiny kernels of [C] alone know no threads.
        self._device_options = {} if runtime is None else {"runtime": runtime}
        self._conv_options = self._options if precision is None else {**self._options, "precision": precision}

    def __repr__(self) -> str:
        return f"<resnet_ref.kernels on {self.device!r}, {' or '.join(self.dtypes)}>"

    @cached_property
    def _kernels(self) -> SimpleNamespace:
        return self._load()

    def load(self) -> None:
        """Import the kernels, where no call has done so yet."""
        assert self._kernels is not None

    @property
    def threads(self) -> int:
        """The number of threads a kernel call may use."""
        return self._threads or 1

    def dtype(self, dtype: DTypeLike) -> "np.dtype[Any]":
        """`dtype`, where this device computes in it; DeviceError otherwise."""
        try:
            wanted: np.dtype[Any] = np.dtype(dtype)
        except TypeError:
            wanted = np.dtype(np.void)
        if wanted.name not in self.dtypes or not wanted.isnative:
            raise DeviceError(
                f"device {self.device!r} computes in {' or '.join(self.dtypes)}, not in {dtype!r}"
                + ("" if self.device == "definition" else '; device="definition" computes in float64 too')
            )
        return wanted

    def im2col(self, x: Array, rows: Window, cols: Window) -> Array:
        """[N, H, W, C] -> [N*OH*OW, KH*KW*C]: row (n, oy, ox) holds what that output reads, padding as zeros."""
        self._check("im2col", x=x, x_axes="NHWC")
        self._require_windows("im2col", rows, cols)
        return self._kernels.im2col(self._ready(x), rows, cols, **self._options)

    def conv2d(
        self,
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
        """activation(conv(x, w) + bias + residual[:, ::s, ::s]), by im2col (tf.nn.conv2d with explicit pads).

        x [N, H, W, C], w [KH, KW, C, F], bias [F] -> [N, OH, OW, F]; residual [N, RH, RW, F] with
        ceil(RH / s) = OH. `rows` and `cols` come from `geometry`; rate > 1 makes the convolution atrous.
        activation: None, "relu" or "relu6". `out` must not overlap an input.
        """
        self._check("conv2d", x=x, x_axes="NHWC")
        self._require_windows("conv2d", rows, cols)
        self._require_array("conv2d", "w", w)
        if w.ndim != 4 or w.shape[3] == 0 or w.shape[:3] != (rows.size, cols.size, x.shape[3]):
            raise ShapeError(
                f"conv2d: w must be [KH, KW, C, F] = [{rows.size}, {cols.size}, {x.shape[3]}, F] "
                f"(the windows' sizes and x's channels), got {list(w.shape)}"
            )
        shape = (x.shape[0], rows.out(x.shape[1]), cols.out(x.shape[2]), w.shape[3])
        bounds(activation)
        self._expect("conv2d", bias=(bias, shape[3:]), out=(out, shape))
        if residual is not None:
            self._require_array("conv2d", "residual", residual)
            if residual.ndim != 4:
                raise ShapeError(f"conv2d: residual must be [N, RH, RW, F], got shape {list(residual.shape)}")
            strided = tuple(subsampled(n, residual_stride) for n in residual.shape[1:3])
            if (residual.shape[0], *strided, residual.shape[3]) != shape:
                raise ShapeError(
                    f"conv2d: residual {list(residual.shape)} taken with stride {residual_stride} must have the "
                    f"output's shape {list(shape)}"
                )
        self._same_dtype("conv2d", x, w=w, bias=bias, residual=residual, out=out)
        ready = self._ready
        epilogue = {"bias": ready(bias), "residual": ready(residual), "residual_stride": residual_stride}
        return self._kernels.conv2d(
            ready(x), ready(w), rows, cols, **epilogue, activation=activation, out=out, **self._conv_options
        )

    def batch_norm(
        self,
        x: Array,
        gamma: Array | None,
        beta: Array,
        mean: Array,
        variance: Array,
        epsilon: float,
        *,
        activation: str | None = None,
        out: Array | None = None,
    ) -> Array:
        """activation((x - mean) * (gamma / sqrt(variance + epsilon)) + beta) over the last axis of x [N, H, W, C].

        gamma (None: 1), beta, mean, variance: [C]. TensorFlow's FusedBatchNorm in inference; training gives it the
        results of `batch_statistics`. `out` may be x.
        """
        self._check("batch_norm", x=x, x_axes="NHWC")
        bounds(activation)
        channels = x.shape[3:]
        numbers = {"gamma": gamma, "beta": beta, "mean": mean, "variance": variance}
        self._expect("batch_norm", **{name: (array, channels) for name, array in numbers.items()}, out=(out, x.shape))
        self._same_dtype("batch_norm", x, **numbers, out=out)
        arrays = map(self._ready, (x, gamma, beta, mean, variance))
        return self._kernels.batch_norm(*arrays, epsilon, activation=activation, out=out, **self._options)

    def batch_statistics(self, x: Array) -> tuple[Array, Array]:
        """Mean and biased variance [C] of x [N, H, W, C] over N, H, W; summed in float64, returned in x's dtype."""
        self._check("batch_statistics", x=x, x_axes="NHWC")
        if x.size == 0:
            raise ShapeError(f"batch_statistics: an empty batch {list(x.shape)} has no mean; give at least one image")
        return self._kernels.batch_statistics(self._ready(x), **self._options)

    def moving_average(self, moving: Array, batch: Array, decay: float) -> Array:
        """moving - (moving - batch) * (1 - decay), both [C]: TensorFlow's assign_moving_average."""
        self.dtype(self._require_array("moving_average", "moving", moving).dtype)
        self._expect("moving_average", batch=(batch, moving.shape))
        self._same_dtype("moving_average", moving, batch=batch)
        return self._kernels.moving_average(*map(self._ready, (moving, batch)), decay, **self._device_options)

    def unbiased(self, variance: Array, count: int) -> Array:
        """variance [C] * count / (count - 1): what TensorFlow feeds to moving_variance (for count 1: variance)."""
        self.dtype(self._require_array("unbiased", "variance", variance).dtype)
        return self._kernels.unbiased(self._ready(variance), count, **self._device_options)

    def max_pool2d(self, x: Array, rows: Window, cols: Window) -> Array:
        """[N, H, W, C] -> [N, OH, OW, C] (tf.nn.max_pool2d): padding and NaN never win the maximum."""
        self._check("max_pool2d", x=x, x_axes="NHWC")
        self._require_windows("max_pool2d", rows, cols)
        rows.out(x.shape[1]), cols.out(x.shape[2])
        return self._kernels.max_pool2d(self._ready(x), rows, cols, **self._options)

    def subsample(self, x: Array, factor: int) -> Array:
        """x[:, ::factor, ::factor, :] (slim's subsample)."""
        self._check("subsample", x=x, x_axes="NHWC")
        subsampled(x.shape[1], factor)
        return self._kernels.subsample(x if self.runtime is None else self._ready(x), factor, **self._options)

    def spatial_mean(self, x: Array) -> Array:
        """[N, H, W, C] -> [N, 1, 1, C]: the mean over height and width (slim's pool5), summed in float64."""
        self._check("spatial_mean", x=x, x_axes="NHWC")
        return self._kernels.spatial_mean(self._ready(x), **self._options)

    def add_bias(self, x: Array, bias: Array) -> Array:
        """x [..., C] + bias [C] (tf.nn.bias_add)."""
        self._check("add_bias", x=x)
        self._expect("add_bias", bias=(bias, x.shape[-1:]))
        self._same_dtype("add_bias", x, bias=bias)
        return self._kernels.add_bias(self._ready(x), self._ready(bias), **self._options)

    def relu(self, x: Array, *, out: Array | None = None) -> Array:
        """max(x, 0), any shape (tf.nn.relu): NaN stays NaN. `out` may be x."""
        return self._pointwise("relu", x, out=out)

    def relu6(self, x: Array, *, out: Array | None = None) -> Array:
        """min(max(x, 0), 6), any shape (tf.nn.relu6). `out` may be x."""
        return self._pointwise("relu6", x, out=out)

    def add_relu(self, shortcut: Array, residual: Array, *, out: Array | None = None) -> Array:
        """relu(shortcut + residual), two arrays of one shape: the end of slim's bottleneck. `out` may be either."""
        return self._pointwise("add_relu", shortcut, residual, out=out)

    def add_relu6(self, shortcut: Array, residual: Array, *, out: Array | None = None) -> Array:
        """relu6(shortcut + clip(residual, -6, 6)): slim's bottleneck with use_bounded_activations."""
        return self._pointwise("add_relu6", shortcut, residual, out=out)

    def softmax(self, x: Array) -> Array:
        """exp(x) / sum(exp(x)) over the last axis of x [..., classes], shifted so that nothing overflows."""
        self._check("softmax", x=x)
        if x.shape[-1] == 0:
            raise ShapeError(f"softmax: the last axis of {list(x.shape)} holds no class")
        return self._kernels.softmax(self._ready(x), **self._options)

    def _pointwise(self, kernel: str, *arrays: Array, out: Array | None) -> Array:
        self._check(kernel, x=arrays[0])
        for array in arrays[1:]:
            self._expect(kernel, residual=(array, arrays[0].shape))
            self._same_dtype(kernel, arrays[0], residual=array)
        self._expect(kernel, out=(out, arrays[0].shape))
        self._same_dtype(kernel, arrays[0], out=out)
        function = getattr(self._kernels, kernel)
        return function(*map(self._ready, arrays), out=out, **self._options)

    def _ready(self, array: Any) -> Any:
        """The array as kernels take it; None stays None."""
        return None if array is None else self.arrays.contiguous(array)

    def _check(self, kernel: str, *, x: Array, x_axes: str = "") -> None:
        self._require_array(kernel, "x", x)
        self.dtype(x.dtype)
        if x.ndim == 0 or (x_axes and x.ndim != len(x_axes)) or (x_axes and 0 in x.shape[1:]):
            wanted = f"[{', '.join(x_axes)}], none of H, W, C empty" if x_axes else "of at least one axis"
            raise ShapeError(f"{kernel}: x must be {wanted}; got shape {list(x.shape)}")

    def _require_array(self, kernel: str, name: str, array: Array | None) -> Array:
        self.arrays.require(f"{kernel}: {name}", array)
        return array  # type: ignore[return-value]

    def _require_windows(self, kernel: str, *windows: Window) -> None:
        for window in windows:
            if not isinstance(window, Window):
                raise ShapeError(
                    f"{kernel}: rows and cols must be Windows, from geometry.same, valid or fixed; got {window!r}"
                )

    def _expect(self, kernel: str, **arrays: tuple[Array | None, tuple[int, ...]]) -> None:
        for name, (array, shape) in arrays.items():
            if array is None and name in _OPTIONAL:
                continue
            present = self._require_array(kernel, name, array)
            if present.shape != tuple(shape):
                raise ShapeError(f"{kernel}: {name} must have shape {list(shape)}, got {list(present.shape)}")
            if name == "out" and not present.flags.c_contiguous:
                raise ShapeError(f"{kernel}: out must be contiguous; pass np.empty({list(shape)})")
            if name == "out" and (unfit := self.arrays.unfit_as_out(present)) is not None:
                raise ShapeError(f"{kernel}: out must {unfit}")

    def _same_dtype(self, kernel: str, x: Array, **arrays: Array | None) -> None:
        for name, array in arrays.items():
            if array is not None and array.dtype != x.dtype:
                raise ShapeError(f"{kernel}: {name} is {array.dtype}, x is {x.dtype}; convert one to the other's dtype")


def namespace(*modules: ModuleType) -> SimpleNamespace:
    """The public functions of one tier's modules, by name."""
    return SimpleNamespace(**{k: v for module in modules for k, v in vars(module).items() if not k.startswith("_")})
