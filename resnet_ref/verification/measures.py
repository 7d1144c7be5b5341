"""How one end point of ours, slim's, and the float64 truth lie to each other."""

import math
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from resnet_ref.accuracy import error, of_scale

Array = NDArray[Any]
# Edges of the histogram of errors: powers of ten of |ours - slim| / max |truth|, half a decade apart.
EXPONENTS = np.arange(-12, 1.5, 0.5)


@dataclass(frozen=True)
class Measures:
    """One end point. Errors named `e_` are max |a - b| / max |truth|.

    compared: how many values. scale: max |truth|. max_error, mean_error: of |ours - slim|. ulps_median, ulps_max: the
    same in units in the last place of slim's float32. cosine: between ours and slim's. e_near: ours to slim; e_ours,
    e_slim: to the float64 truth. at: where ours and slim differ most, and there `ours`, `slim` and `truth`. histogram:
    how many values differ by 10**EXPONENTS[i] to 10**EXPONENTS[i + 1] of the scale; the first bin takes all below it.
    """

    name: str
    shape: tuple[int, ...]
    compared: int
    scale: float
    max_error: float
    mean_error: float
    e_near: float
    ulps_median: float
    ulps_max: float
    cosine: float
    e_ours: float
    e_slim: float
    at: tuple[int, ...]
    ours: float
    slim: float
    truth: float
    histogram: tuple[int, ...]


def measure(
    name: str, shape: tuple[int, ...], ours: Array, slim: Array, truth: Array, positions: Array | None, scale: float
) -> Measures:
    """Compare flat arrays: ours (float32 or float64), slim's float32, the float64 truth."""
    off = np.subtract(ours, slim, dtype=np.float64)
    np.abs(off, out=off)
    worst = int(np.argmax(off)) if off.size else 0  # NaN counts as the largest
    largest = float(off.max(initial=0))
    index = int(worst if positions is None else positions[worst]) if off.size else 0
    ulps = _ulps(ours.astype(np.float32), slim)
    return Measures(
        name=name,
        shape=shape,
        compared=off.size,
        scale=scale,
        max_error=largest,
        mean_error=float(off.mean()) if off.size else 0.0,
        e_near=of_scale(largest, scale) if math.isfinite(largest) else error(ours, slim, scale),
        ulps_median=float(np.median(ulps)) if off.size else 0.0,
        ulps_max=float(ulps.max(initial=0)),
        cosine=_cosine(ours, slim),
        e_ours=error(ours, truth, scale),
        e_slim=error(slim, truth, scale),
        at=tuple(int(i) for i in np.unravel_index(index, shape)) if off.size else (),
        ours=float(ours[worst]) if off.size else 0.0,
        slim=float(slim[worst]) if off.size else 0.0,
        truth=float(truth[worst]) if off.size else 0.0,
        histogram=_histogram(off, scale or 1.0),
    )


def _ulps(a: Array, b: Array) -> Array:
    """How many float32 numbers lie between a and b: their bits, made monotonic, subtracted."""
    ordered = []
    for x in (a, b):
        bits = np.ascontiguousarray(x, np.float32).view(np.int32)
        ordered.append(np.where(bits < 0, -(bits & 0x7FFFFFFF), bits) if (bits < 0).any() else bits)
    return np.abs(np.subtract(*ordered, dtype=np.int64))


def _cosine(a: Array, b: Array) -> float:
    """Of the angle between two vectors; 1 where both are zero."""
    a, b = a.astype(np.float64), b.astype(np.float64)
    norms = float(np.sqrt((a @ a) * (b @ b)))
    return float(a @ b) / norms if norms > 0 else float(not (a.any() or b.any()))


def _histogram(off: Array, scale: float) -> tuple[int, ...]:
    relative = np.divide(off, scale, dtype=np.float32, casting="same_kind")
    with np.errstate(divide="ignore", invalid="ignore"):
        exponents = np.log10(relative, out=relative)
    np.nan_to_num(exponents, copy=False, nan=EXPONENTS[-1], posinf=EXPONENTS[-1], neginf=EXPONENTS[0])
    last = len(EXPONENTS) - 2
    bins = np.clip(2 * (exponents - np.float32(EXPONENTS[0])), 0, last).astype(np.int8)  # half a decade each
    return tuple(int(count) for count in np.bincount(bins, minlength=last + 1))
