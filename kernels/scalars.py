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
    """The real number that a value is, an int where it is whole, or None: for bools, text, what float cannot hold, and
    all else."""
    if isinstance(value, bool) or not (isinstance(value, numbers.Real) or whole(value) is not None):
        return None
    try:
        number = float(value)
    except OverflowError:
        return None
    return number if (found := whole(value)) is None else found


def positive(name: str, value: Any) -> int:
    """The whole number from 1 up that a value is; ShapeError, with the argument's name, for any other value."""
    number = whole(value)
    if number is None or number < 1:
        raise ShapeError(f"{name} must be a whole number of at least 1, got {value!r}")
    return number
