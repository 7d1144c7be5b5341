"""Compares the variables a network needs with those it is given; one report names everything that is wrong."""

from collections.abc import Mapping
from difflib import get_close_matches
from typing import Any

import numpy as np
from numpy.typing import NDArray

from resnet_ref.errors import WeightsError

_SHOWN = 5


def check_variables(
    weights: Mapping[str, NDArray[Any]] | None, expected: Mapping[str, tuple[int, ...]]
) -> Mapping[str, NDArray[Any]]:
    """`weights` again, once every expected variable is there with its shape and a real dtype; extra ones are ignored.

    WeightsError names what is missing or has another shape, and the nearest name there is.
    """
    if not isinstance(weights, Mapping):
        if not expected and weights is None:
            return {}
        raise WeightsError(
            f"weights= must map variable names to arrays, got {type(weights).__name__}; "
            "pass weights=load_weights(file), or a dict"
        )
    problems = []
    for name, shape in expected.items():
        if name not in weights:
            near = get_close_matches(name, weights, 1)
            problems.append(f"{name} {list(shape)} is missing" + (f" (there is {near[0]})" if near else ""))
        elif np.shape(weights[name]) != shape:
            problems.append(f"{name} has shape {list(np.shape(weights[name]))}, expected {list(shape)}")
        elif np.asarray(weights[name]).dtype.kind not in "fiu":
            problems.append(f"{name} has dtype {np.asarray(weights[name]).dtype}, expected real numbers")
    if problems:
        raise WeightsError(report(problems, "the weights do not fit the network") + _advice(weights, expected))
    return weights


def report(problems: list[str], heading: str) -> str:
    """One line: the heading and the first few problems."""
    more = f"; and {len(problems) - _SHOWN} more" if len(problems) > _SHOWN else ""
    return f"{heading}: " + "; ".join(problems[:_SHOWN]) + more


def _advice(weights: Mapping[str, NDArray[Any]], expected: Mapping[str, tuple[int, ...]]) -> str:
    roots = sorted({name.split("/")[0] for name in weights})
    if roots and not {name.split("/")[0] for name in expected} & set(roots):
        return f". The weights' scopes are {', '.join(roots[:_SHOWN])}: pass that as scope="
    biases = [name for name in expected if name.endswith("/biases") and name not in weights]
    if len(biases) > 1 and any(name.endswith("BatchNorm/beta") for name in weights):
        return ". The weights have batch norm: pass arg_scope=resnet_arg_scope() with use_batch_norm=True"
    return ""
