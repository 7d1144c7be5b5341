"""How close float32 must be: measured against the float64 definition, and beside slim's own distance from it.

With e(k) the error of end point k, max |a - truth| / max |truth|, for ours and for slim's float32:

    ours is right       e_ours(k) <= 4 max e_slim(j) + 4 eps      over all j up to k, in slim's order
    slim agrees         e_slim(k) <= 16 max e_ours(j) + 16 eps    else slim computed another function
    they are near       |ours - slim| <= 1e-4 max |truth|

Probabilities are held to what the logits may be off, halved (a softmax's derivative is at most 1/2), + 4 or 16 eps.
Of a sample, whose largest error may be missing, slim's counts 16 times too. Where products are of rounder numbers than
float32's (see COARSER), ours may err as many times more, and be as far from slim as that.
"""

import math
from typing import Any

import numpy as np
from numpy.typing import NDArray

EPS = float(np.finfo(np.float32).eps)
NEAR = 1e-4
OURS, SLIM = 4, 16  # how many times the other's error each may have
# The bits of what is multiplied, where these are fewer than float32's 24, or sums of products lose as many; and how
# many times coarser that is.
BITS = {"bf16x3": 16, "tf32": 11, "bfloat16": 8}
COARSER = {precision: 2 ** (24 - bits) for precision, bits in BITS.items()}
Array = NDArray[Any]


def error(actual: Array, truth: Array, scale: float | None = None) -> float:
    """max |actual - truth| / scale, by default max |truth|; over a scale of zero 0 where all are equal, else infinite.

    Infinite too where one is NaN and the other is not.
    """
    with np.errstate(invalid="ignore"):
        difference = np.subtract(actual, truth, dtype=np.float64)
    np.abs(difference, out=difference)
    largest = float(difference.max(initial=0.0))
    if not math.isfinite(largest):
        both = (actual == truth) | (np.isnan(actual) & np.isnan(truth))
        largest = float(np.where(both, 0.0, np.where(np.isnan(difference), math.inf, difference)).max(initial=0.0))
    return of_scale(largest, float(np.abs(truth).max(initial=0)) if scale is None else scale)


def of_scale(largest: float, scale: float) -> float:
    """largest / scale; over a scale that is zero or not finite, 0 for 0 and else infinite."""
    return largest / scale if 0 < scale < math.inf else (0.0 if largest == 0 else math.inf)


class Rule:
    """Judges the end points of a network one after the other, in slim's order. sampled: not all values are known.
    precision: that ours ran in."""

    def __init__(self, sampled: bool = False, precision: str = "float32") -> None:
        coarser = COARSER.get(precision, 1)
        self.ours = (SLIM if sampled else OURS) * coarser
        self.is_coarse = coarser > 1
        self.largest = {"ours": 0.0, "slim": 0.0}
        self.allowed = {"ours": 0.0, "slim": 0.0}  # absolute, at the last end point that is no probability

    def shares(self, name: str, ours: float, slim: float, near: float, scale: float) -> dict[str, float]:
        """How much of each bound an end point uses; above 1 it breaks it.

        ours, slim: their errors; near: max |ours - slim| / max |truth|; scale: max |truth|.
        """
        own = {"ours": ours, "slim": slim}
        bounds = {}
        for side, (other, times) in {"ours": ("slim", self.ours), "slim": ("ours", SLIM)}.items():
            if name == "predictions":
                bounds[side] = (self.allowed[side] / 2 + times * EPS) / (scale or 1)
            else:
                largest = max(self.largest[other], own[other])
                bounds[side] = times * (largest + EPS)
                self.allowed[side] = bounds[side] * scale
        if name != "predictions":
            self.largest = {side: max(self.largest[side], own[side]) for side in own}
        return {
            "ours is right": ours / bounds["ours"],
            "slim agrees": slim / bounds["slim"],
            "they are near": near / (max(NEAR, bounds["ours"]) if self.is_coarse else NEAR),
        }
