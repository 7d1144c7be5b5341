"""Times every kernel call of a run, and measures what the machine could do at best."""

import statistics
import time
from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
from threadpoolctl import threadpool_limits

from resnet_ref.eager import Eager
from resnet_ref.errors import DeviceError
from resnet_ref.handle import Handle
from resnet_ref.kernels import Tier
from resnet_ref.kernels.arrays import Array
from resnet_ref.kernels.vector.executor import run
from resnet_ref.model import Model
from resnet_ref.shapes import Names

_COPIED = 64 << 20  # bytes; far more than any cache holds
_SIDE = 1536  # of the matrices that measure arithmetic


@dataclass(frozen=True)
class Call:
    """One kernel call. flops: a multiply-add as two. bytes: its arrays once each, read or written. start, taken: when
    the last run came to it, in seconds, and how long it then took. seconds: the median over the runs."""

    kernel: str
    scope: str
    shapes: tuple[tuple[int, ...], ...]
    output: tuple[int, ...]
    flops: int
    bytes: int
    start: float
    taken: float
    seconds: float

    @property
    def intensity(self) -> float:
        """flops per byte."""
        return self.flops / self.bytes if self.bytes else 0.0


@dataclass(frozen=True)
class Peak:
    """What this machine did at best, with as many threads: FLOP/s of a matrix product (NumPy's BLAS, float32), and
    bytes/s of a copy, read and written."""

    flops: float
    bytes: float

    def roof(self, call: Call) -> float:
        """The seconds that a call would take at these."""
        return max(call.flops / self.flops, call.bytes / self.bytes)


@dataclass(frozen=True)
class Profile:
    """The calls of a run in order; `seconds` of the whole run, Python included; `runs` were taken for the medians."""

    what: str
    device: str
    threads: int
    shape: tuple[int, ...]
    runs: int
    calls: tuple[Call, ...]
    seconds: float
    peak: Peak


def profile(model: Model, images: Array, runs: int = 10) -> Profile:
    """Run a model on images [N, H, W, C], once to warm up and then `runs` times; DeviceError for one on a gpu."""
    if model.tier.device == "gpu":
        raise DeviceError("kernel calls are timed on the cpu; `resnet-ref bench --device gpu --profile` times a gpu's")
    images = np.ascontiguousarray(images, model.dtype)
    weights = {name: np.asarray(array, model.dtype) for name, array in model.weights.items()}
    taken: list[list[Call]] = []
    wholes = []
    for _ in range(runs + 1):
        profiled = _Profiled(model.tier, weights, model.dtype)
        start = time.perf_counter()
        model.network.describe(Handle(profiled, images, end_points=_Nothing()))
        wholes.append(time.perf_counter() - start)
        taken.append(profiled.calls)
    medians = [statistics.median(call.seconds for call in same) for same in zip(*taken[1:], strict=True)]
    calls = tuple(replace(call, seconds=seconds) for call, seconds in zip(taken[-1], medians, strict=True))
    function, scope = model.network.function, model.network.scope
    what = function if function == scope else f"{function} {scope}"
    return Profile(
        what, model.tier.device, model.tier.threads, images.shape, runs, calls, statistics.median(wholes[1:]),
        measure_peak(model.tier.threads),
    )  # fmt: skip


def measure_peak(threads: int) -> Peak:
    """The best of several matrix products and copies."""
    rng = np.random.default_rng(0)
    a, b = rng.standard_normal((2, _SIDE, _SIDE), np.float32)
    product = np.empty_like(a)
    source, target = (
        np.ones((threads, _COPIED // threads // 4), np.float32),
        np.zeros((threads, _COPIED // threads // 4)),
    )
    target = target.astype(np.float32)
    with threadpool_limits(threads, "blas"):
        multiply = _best(lambda: np.matmul(a, b, out=product))
    copy = _best(lambda: run(lambda i: np.copyto(target[i], source[i]), threads, threads))
    return Peak(2 * _SIDE**3 / multiply, 2 * source.nbytes / copy)


def _best(work: Callable[[], Any], times: int = 7) -> float:
    taken = []
    for _ in range(times):
        start = time.perf_counter()
        work()
        taken.append(time.perf_counter() - start)
    return min(taken)


class _Nothing(dict[str, Any]):
    """Keeps no end points."""

    def __setitem__(self, name: str, value: Any) -> None:
        pass


class _Timed:
    """A tier whose kernels note what they are called with and how long they take."""

    def __init__(self, tier: Tier) -> None:
        self.tier = tier
        self.arrays = tier.arrays
        self.layer = ""
        self.calls: list[Call] = []
        self.began = time.perf_counter()

    def __getattr__(self, name: str) -> Any:
        kernel = getattr(self.tier, name)

        def call(*args: Any, **kwargs: Any) -> Any:
            shapes = tuple(a.shape for a in args if isinstance(a, np.ndarray))
            read = sum(a.nbytes for a in (*args, *kwargs.values()) if isinstance(a, np.ndarray))
            start = time.perf_counter()
            output = kernel(*args, **kwargs)
            seconds = time.perf_counter() - start
            written = output.nbytes if kwargs.get("out") is None else 0  # `out` was counted among the arguments
            flops = _FLOPS[name](output.size, args)
            when = (start - self.began, seconds, seconds)
            self.calls.append(Call(name, self.layer, shapes, output.shape, flops, read + written, *when))
            return output

        return call


# From the number of outputs and the arguments; a multiply-add, a comparison and an addition count as the hardware
# would: 2, 1, 1.
_FLOPS: dict[str, Callable[[int, Any], int]] = {
    "conv2d": lambda size, args: 2 * size * int(np.prod(args[1].shape[:3])),
    "batch_norm": lambda size, args: 3 * size,
    "max_pool2d": lambda size, args: size * args[1].size * args[2].size,
    "subsample": lambda size, args: 0,
    "spatial_mean": lambda size, args: int(args[0].size),
    "add_relu": lambda size, args: 2 * size,
    "add_relu6": lambda size, args: 4 * size,
    "softmax": lambda size, args: 4 * size,
}


class _Profiled(Eager):
    """Eager on a timed tier, which is told whose layer it computes."""

    def __init__(self, tier: Tier, weights: Any, dtype: Any) -> None:
        self.timed = _Timed(tier)
        self._name = Names()
        super().__init__(self.timed, weights, dtype)  # type: ignore[arg-type]  # it has a tier's methods

    @property
    def calls(self) -> list[Call]:
        """What was called so far."""
        return self.timed.calls

    def conv2d(self, x: Array, scope: str, *args: Any, **kwargs: Any) -> Array:
        """Timed."""
        self.timed.layer = self._name(scope)
        return super().conv2d(x, scope, *args, **kwargs)

    def max_pool2d(self, x: Array, scope: str, *args: Any) -> Array:
        """Timed."""
        self.timed.layer = self._name(scope)
        return super().max_pool2d(x, scope, *args)

    def subsample(self, x: Array, scope: str, factor: int) -> Array:
        """Timed."""
        self.timed.layer = self._name(scope)
        return super().subsample(x, scope, factor)

    def spatial_mean(self, x: Array) -> Array:
        """Timed."""
        self.timed.layer = self._name("global_pool")
        return super().spatial_mean(x)

    def add_relu(self, shortcut: Array, residual: Array, scope: str, *, bounded: bool) -> Array:
        """Timed."""
        self.timed.layer = self._name(scope)
        return super().add_relu(shortcut, residual, scope, bounded=bounded)

    def softmax(self, x: Array) -> Array:
        """Timed."""
        self.timed.layer = self._name("predictions")
        return super().softmax(x)
