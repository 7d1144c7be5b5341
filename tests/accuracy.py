"""The accuracy rule as an assertion over a network's end points, with what it uses of each bound."""

from collections.abc import Mapping

import numpy as np
from numpy.typing import NDArray

from resnet_ref.accuracy import EPS, Rule, error

__all__ = ["EPS", "check_rule", "error"]
Values = Mapping[str, NDArray]


def check_rule(ours: Values, slim: Values, truth: Values, *, full_width: bool = False) -> dict[str, float]:
    """Assert the accuracy rule over a network's end points; returns the largest share of each bound that was used.

    Beside `accuracy.Rule`: the median of e_ours / e_slim is at most 1.5, and at full width and 224 pixels e_ours(k) is
    at most 2 e_slim(k).
    """
    assert list(ours) == list(slim) == list(truth), "the end points or their order differ"
    rule, used, ratios = Rule(), {}, []
    for name, true in truth.items():
        assert ours[name].shape == slim[name].shape == true.shape, f"{name}: the shapes differ"
        scale = float(np.abs(true).max(initial=0))
        e_ours, e_slim = error(ours[name], true), error(slim[name], true)
        shares = rule.shares(name, e_ours, e_slim, error(ours[name], slim[name], scale), scale)
        del shares["slim agrees"]  # here slim is given; its training statistics, in float32, are further off
        if full_width:
            shares["full width"] = e_ours / (2 * e_slim + 4 * EPS)
        for kind, share in shares.items():
            assert share <= 1, f"{kind}: {share:.3g} of what is allowed; {_report(name, ours, slim, truth)}"
            used[kind] = max(used.get(kind, 0.0), share)
        ratios.append(e_ours / (e_slim + EPS / 2))
    median = float(np.median(ratios))
    assert median <= 1.5, f"the median of our errors is {median:.2f} times TensorFlow's, expected at most 1.5"
    return {**used, "median": median}


def _report(name: str, ours: Values, slim: Values, truth: Values) -> str:
    index = np.unravel_index(int(np.argmax(np.abs(ours[name] - truth[name]))), truth[name].shape)
    at = tuple(map(int, index))
    return f"{name} at {at}: ours {ours[name][at]!r}, TensorFlow {slim[name][at]!r}, float64 {truth[name][at]!r}"
