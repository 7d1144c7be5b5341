"""The life of one number: what it was made of, in the network's own float32 and re-summed in float64."""

from dataclasses import dataclass, field
from typing import Any

import numpy as np

from resnet_ref.accuracy import EPS
from resnet_ref.errors import ShapeError
from resnet_ref.kernels.activation import bounds
from resnet_ref.kernels.arrays import Array
from resnet_ref.tracing.graph import Step, Tracer

Position = tuple[int, int, int]  # row, column, channel


@dataclass(frozen=True)
class Input:
    """A value that went in: of which step, where, how much it is, by what it was multiplied, and what that gave."""

    step: Step
    at: Position
    value: float
    weight: float | None = None
    product: float | None = None


@dataclass(frozen=True)
class Taps:
    """A window's taps [KH, KW]: rows, cols: their positions in the input; padded: whether each fell on padding; sums:
    over the channels, of a convolution's products (of a pool: the values). rate: how far apart they stand."""

    rows: Array
    cols: Array
    padded: Array
    sums: Array
    rate: tuple[int, int]


@dataclass(frozen=True)
class Life:
    """One value of a step.

    value: the network's. inputs: what went in, what mattered most first, at most as many as asked for. count: how many
    products (or values) there were. total: their sum in float64; total_abs: of their magnitudes. network_sum: the
    network's own sum of products, before batch norm. parts: what else went in, by name (mean, variance, gamma ...).
    stages: what became of it, by name, in the network's precision; the last is the value. bound: how far total may lie
    from the network's sum: K eps sum |products|.
    """

    step: Step
    at: Position
    value: float
    inputs: tuple[Input, ...] = ()
    count: int = 0
    total: float = 0.0
    total_abs: float = 0.0
    network_sum: float | None = None
    taps: Taps | None = None
    parts: dict[str, float] = field(default_factory=dict)
    stages: dict[str, float] = field(default_factory=dict)

    @property
    def bound(self) -> float:
        """K eps sum |products|."""
        return self.count * EPS * self.total_abs


def life(tracer: Tracer, step: Step, at: Position, most: int = 8) -> Life:
    """The life of the value of `step` at (row, column, channel), of the first image. ShapeError outside of it."""
    shape = as_map(step.output).shape[1:]
    if not all(0 <= i < n for i, n in zip(at, shape, strict=True)):
        raise ShapeError(f"{step.name} has {shape[0]} rows, {shape[1]} columns, {shape[2]} channels; got {list(at)}")
    value = _value(step, at)
    return _LIVES[step.op](tracer, step, at, value, most)


def _convolved(tracer: Tracer, step: Step, at: Position, value: float, most: int) -> Life:
    """A convolution: its im2col row times its weights, then batch norm or a bias, then the activation."""
    (source,) = step.inputs
    x = as_map(source.output)[0]
    weights = np.asarray(tracer.weights[f"{step.scope}/weights"], tracer.dtype)[..., at[2]]  # [KH, KW, C]
    rows, cols, padded = _positions(step, at, x.shape)
    row = np.where(padded[..., None], 0, x[np.clip(rows, 0, len(x) - 1)][:, np.clip(cols, 0, x.shape[1] - 1)])
    products = row.astype(np.float64) * weights
    inside = np.broadcast_to(~padded[..., None], products.shape)
    order = np.argsort(np.where(inside, -np.abs(products), np.inf), axis=None, kind="stable")
    inputs = tuple(
        Input(source, (int(rows[ky]), int(cols[kx]), int(c)), *(float(a[ky, kx, c]) for a in (row, weights, products)))
        for ky, kx, c in zip(*np.unravel_index(order[: min(most, inside.sum())], products.shape), strict=True)
    )
    total = float(products.sum())
    parts, stages, network_sum = _normalised(tracer, step, at, total)
    return Life(
        step, at, value, inputs, products.size, total, float(np.abs(products).sum()), network_sum,
        Taps(rows, cols, padded, products.sum(axis=2), _rate(step)), parts, stages,
    )  # fmt: skip


def _normalised(
    tracer: Tracer, step: Step, at: Position, total: float
) -> tuple[dict[str, float], dict[str, float], float | None]:
    """Batch norm's numbers or the bias, what each gives in the network's precision, and the network's own sum."""
    real = tracer.dtype.type
    low, high = (real(bound) for bound in bounds(step.activation))
    last = step.activation or "output"

    def of(name: str) -> Any:
        return real(tracer.weights[f"{step.scope}/{name}"][at[2]])

    if step.sums is None or step.normalizer is None:
        bias = of("biases")
        with_bias = real(total + float(bias))
        return {"bias": float(bias)}, {"sum + bias": float(with_bias), last: float(np.clip(with_bias, low, high))}, None
    summed = step.sums[0, at[0], at[1], at[2]]
    epsilon = real(step.normalizer.epsilon)
    mean, variance, beta = of("BatchNorm/moving_mean"), of("BatchNorm/moving_variance"), of("BatchNorm/beta")
    gamma = of("BatchNorm/gamma") if step.normalizer.scale else real(1)
    # In the kernels' order, so that every digit is the network's.
    scale = 1 / np.sqrt(variance + epsilon) * gamma
    normalised = (summed - mean) * scale + beta
    numbers = {"mean": mean, "variance": variance, "epsilon": epsilon, "gamma": gamma, "beta": beta, "scale": scale}
    stages = {"sum": summed, "batch norm": normalised, last: np.clip(normalised, low, high)}
    return {k: float(v) for k, v in numbers.items()}, {k: float(v) for k, v in stages.items()}, float(summed)


def _pooled(tracer: Tracer, step: Step, at: Position, value: float, most: int) -> Life:
    """A maximum: the tap that won comes first."""
    (source,) = step.inputs
    x = as_map(source.output)[0, :, :, at[2]]
    rows, cols, padded = _positions(step, at, (*x.shape, 1))
    values = x[np.clip(rows, 0, len(x) - 1)][:, np.clip(cols, 0, x.shape[1] - 1)].astype(np.float64)
    ranked = np.argsort(-np.where(padded | np.isnan(values), -np.inf, values), axis=None, kind="stable")
    places = [np.unravel_index(i, values.shape) for i in ranked]
    inputs = [
        Input(source, (int(rows[ky]), int(cols[kx]), at[2]), float(values[ky, kx]))
        for ky, kx in places[:most]
        if not padded[ky, kx]
    ]
    taps = Taps(rows, cols, padded, np.where(padded, 0, values), _rate(step))
    return Life(step, at, value, tuple(inputs), int((~padded).sum()), taps=taps, stages={"maximum": value})


def _picked(tracer: Tracer, step: Step, at: Position, value: float, most: int) -> Life:
    """Subsampled or squeezed: the very number of another place."""
    (source,) = step.inputs
    stride = (step.rows.stride, step.cols.stride) if step.rows and step.cols else (1, 1)
    where = (at[0] * stride[0], at[1] * stride[1], at[2])
    return Life(step, at, value, (Input(source, where, _value(source, where)),), 1, stages={"taken as it is": value})


def _averaged(tracer: Tracer, step: Step, at: Position, value: float, most: int) -> Life:
    """A mean over a map."""
    (source,) = step.inputs
    x = as_map(source.output)[0, :, :, at[2]].astype(np.float64)
    return _weighted(step, at, value, source, x, np.full(x.shape, 1 / x.size), at[2], most, "mean")


def _weighted(
    step: Step, at: Position, value: float, source: Step, x: Array, weights: Array, channel: int, most: int, name: str
) -> Life:
    products = x * weights
    order = np.argsort(-np.abs(products), axis=None, kind="stable")[:most]
    inputs = [
        Input(source, (int(i), int(j), channel), float(x[i, j]), float(weights[i, j]), float(products[i, j]))
        for i, j in zip(*np.unravel_index(order, x.shape), strict=True)
    ]
    total, total_abs = float(products.sum()), float(np.abs(products).sum())
    return Life(step, at, value, tuple(inputs), x.size, total, total_abs, value, stages={name: value})


def _added(tracer: Tracer, step: Step, at: Position, value: float, most: int) -> Life:
    """The end of a residual unit."""
    shortcut, residual = (Input(source, at, _value(source, at)) for source in step.inputs)
    real = tracer.dtype.type
    added = real(residual.value)
    stages: dict[str, float] = {}
    if step.bounded:
        added = np.clip(added, real(-6), real(6))
        stages["residual clipped to [-6, 6]"] = float(added)
    summed = real(shortcut.value) + added
    last = "relu6" if step.bounded else "relu"
    low, high = (real(bound) for bound in bounds(last))
    stages |= {"shortcut + residual": float(summed), last: float(np.clip(summed, low, high))}
    magnitudes = abs(shortcut.value) + abs(float(added))
    ordered = tuple(sorted((shortcut, residual), key=lambda i: -abs(i.value)))
    return Life(step, at, value, ordered, 2, shortcut.value + float(added), magnitudes, float(summed), stages=stages)


def _exponential(tracer: Tracer, step: Step, at: Position, value: float, most: int) -> Life:
    """A softmax: its own logit, then those that took most of the rest."""
    (source,) = step.inputs
    logits = as_map(source.output)[0, at[0], at[1]].astype(np.float64)
    powers = np.exp(logits - logits.max())
    order = sorted(range(len(logits)), key=lambda c: (c != at[2], -powers[c]))[:most]
    inputs = tuple(Input(source, (at[0], at[1], c), float(logits[c]), None, float(powers[c])) for c in order)
    parts = {"largest logit": float(logits.max()), "sum of exponentials": float(powers.sum())}
    stages = {"exp(logit - largest)": float(powers[at[2]]), "divided by the sum": value}
    return Life(step, at, value, inputs, len(logits), parts=parts, stages=stages)


def _pixel(tracer: Tracer, step: Step, at: Position, value: float, most: int) -> Life:
    """A pixel, less its channel's mean, and where the network wants that, divided by the deviation."""
    made = tracer.preprocessing
    mean, deviation = (0.0, 1.0) if made is None else (made.means[at[2]], made.deviations[at[2]])
    parts = {"pixel": value * deviation + mean, "mean": mean}
    if deviation == 1:
        return Life(step, at, value, parts=parts, stages={"pixel - mean": value})
    parts["deviation"] = deviation
    return Life(step, at, value, parts=parts, stages={"(pixel - mean) / deviation": value})


_LIVES: dict[str, Any] = {
    "images": _pixel,
    "conv2d": _convolved,
    "max_pool2d": _pooled,
    "subsample": _picked,
    "squeeze": _picked,
    "spatial_mean": _averaged,
    "add_relu": _added,
    "softmax": _exponential,
}


def _positions(step: Step, at: Position, shape: tuple[int, ...]) -> tuple[Array, Array, Array]:
    """The taps' rows [KH] and columns [KW] in the input, and which of [KH, KW] fall outside of it."""
    assert step.rows is not None
    assert step.cols is not None
    places = [window.reads(i) for window, i in zip((step.rows, step.cols), at[:2], strict=True)]
    outside = [(place < 0) | (place >= n) for place, n in zip(places, shape[:2], strict=True)]
    return places[0], places[1], outside[0][:, None] | outside[1]


def _rate(step: Step) -> tuple[int, int]:
    return (step.rows.rate, step.cols.rate) if step.rows and step.cols else (1, 1)


def as_map(array: Array) -> Array:
    """[N, C] as [N, 1, 1, C]."""
    return array if array.ndim == 4 else array.reshape(len(array), 1, 1, -1)


def _value(step: Step, at: Position) -> float:
    return float(as_map(step.output)[(0, *at)])
