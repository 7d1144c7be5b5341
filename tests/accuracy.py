"""How close a float32 network must be: measured against the float64 definition, beside TensorFlow's own distance."""

from collections.abc import Mapping

import numpy as np
from numpy.typing import NDArray

EPS = float(np.finfo(np.float32).eps)
Values = Mapping[str, NDArray]


def error(actual: NDArray, truth: NDArray) -> float:
    """max |actual - truth| / max |truth|; where the truth is all zero, actual must be too."""
    assert actual.shape == truth.shape, f"shape {actual.shape}, expected {truth.shape}"
    scale = np.abs(truth).max(initial=0)
    if scale == 0:
        assert not actual.any(), "expected zeros alone"
        return 0.0
    return float(np.abs(actual.astype(np.float64) - truth).max() / scale)


def check_rule(ours: Values, slim: Values, truth: Values, *, full_width: bool = False) -> dict[str, float]:
    """Assert the accuracy rule over a network's end points; returns the largest share of each bound that was used.

    With e(k) the error of end point k: e_ours(k) is at most 4 times TensorFlow's largest error up to k; the median of
    e_ours / e_slim is at most 1.5; probabilities are within half of what the logits may be off; at full width and 224
    pixels e_ours(k) is at most 2 e_slim(k); and ours is within 1e-4 of TensorFlow's largest value everywhere.
    """
    assert list(ours) == list(slim) == list(truth), "the end points or their order differ"
    e_ours = {name: error(ours[name], truth[name]) for name in truth}
    e_slim = {name: error(slim[name], truth[name]) for name in truth}
    used = {"rule 1": 0.0, "rule 3": 0.0, "full width": 0.0, "to TensorFlow": 0.0}
    largest = logits_bound = 0.0
    for name in truth:
        largest = max(largest, e_slim[name])
        bound = 4 * largest + 4 * EPS
        if name == "predictions":
            allowed = logits_bound / 2 + 4 * EPS
            off = float(np.abs(ours[name] - truth[name]).max())
            used["rule 3"] = max(used["rule 3"], off / allowed)
            assert off <= allowed, _report(name, ours, slim, truth, off, allowed)
        else:
            used["rule 1"] = max(used["rule 1"], e_ours[name] / bound)
            assert e_ours[name] <= bound, _report(name, ours, slim, truth, e_ours[name], bound)
            logits_bound = bound * float(np.abs(truth[name]).max(initial=0))
        if full_width:
            own = 2 * e_slim[name] + 4 * EPS
            used["full width"] = max(used["full width"], e_ours[name] / own)
            assert e_ours[name] <= own, _report(name, ours, slim, truth, e_ours[name], own)
        to_slim = error(ours[name], slim[name])
        used["to TensorFlow"] = max(used["to TensorFlow"], to_slim / 1e-4)
        assert to_slim <= 1e-4, _report(name, ours, slim, truth, to_slim, 1e-4)
    median = float(np.median([e_ours[name] / (e_slim[name] + EPS / 2) for name in truth]))
    assert median <= 1.5, f"the median of our errors is {median:.2f} times TensorFlow's, expected at most 1.5"
    return {**used, "median": median}


def _report(name: str, ours: Values, slim: Values, truth: Values, got: float, bound: float) -> str:
    index = np.unravel_index(int(np.argmax(np.abs(ours[name] - truth[name]))), truth[name].shape)
    at = tuple(map(int, index))
    return (
        f"{name}: error {got:.3g}, allowed {bound:.3g}; at {at} ours {ours[name][at]!r}, "
        f"TensorFlow {slim[name][at]!r}, float64 {truth[name][at]!r}"
    )
