"""Compares the variables a network needs with those it is given; one report names everything that is wrong."""

from collections.abc import Mapping
from difflib import get_close_matches
from typing import Any

import numpy as np
from numpy.typing import NDArray

from resnet_ref.errors import WeightsError
from resnet_ref.weights.differences import SHOWN, differences, listed


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
    missing = [name for name in expected if name not in weights]
    # Looking for near names takes long, so only for those that will be shown.
    near = {name: get_close_matches(name, weights, 1) for name in missing[:SHOWN]}
    hints = {name: f" (there is {found[0]})" for name, found in near.items() if found}
    given = {name: _array(weights[name]) for name in expected if name in weights}
    problems = differences({name: array.shape for name, array in given.items()}, expected, hints)
    for name, array in given.items():
        if array.dtype.kind not in "fiu":
            problems.append(f"{name} has dtype {array.dtype}, expected real numbers")
    if problems:
        raise WeightsError(f"the weights do not fit the network: {listed(problems)}" + _advice(weights, expected))
    return weights


def _array(value: Any) -> Any:
    """The value itself, where it is an array on whatever device, else in NumPy."""
    return value if hasattr(value, "dtype") and hasattr(value, "shape") else np.asarray(value)


def _advice(weights: Mapping[str, NDArray[Any]], expected: Mapping[str, tuple[int, ...]]) -> str:
    roots = sorted({name.split("/")[0] for name in weights})
    if roots and not {name.split("/")[0] for name in expected} & set(roots):
        return f". The weights' scopes are {', '.join(roots[:SHOWN])}: pass that as scope="
    biases = [name for name in expected if name.endswith("/biases") and name not in weights]
    if len(biases) > 1 and any(name.endswith("BatchNorm/beta") for name in weights):
        return ". The weights have batch norm: pass arg_scope=resnet_arg_scope() with use_batch_norm=True"
    return ""
