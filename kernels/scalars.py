"""Numbers that callers pass: Python's, NumPy's or any other's become Python's."""

import numbers
import operator
from typing import Any

from resnet_ref.errors import ShapeError


def whole(value: Any) -> int | None:
    """The whole number that a value is (operator.index), or None: for bools, floats, text and all else."""
    if isinstance(value, bool):
        return None
    try:
        return operator.index(value)
    except TypeError:
        return None


def real(value: Any) -> float | None:
    """The real number that a value is, an int where it is whole, or None: for bools, text and all else."""
    number = whole(value)
    if number is None and isinstance(value, numbers.Real) and not isinstance(value, bool):
        return float(value)
    return number


def positive(name: str, value: Any) -> int:
    """The whole number from 1 up that a value is; ShapeError, with the argument's name, for any other value."""
    number = whole(value)
    if number is None or number < 1:
        raise ShapeError(f"{name} must be a whole number of at least 1, got {value!r}")
    return number
