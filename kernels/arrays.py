"""What the kernels call an array, whose arrays a device takes, and how a result reaches `out`."""

from typing import Any, Protocol

import numpy as np
from numpy.typing import NDArray

from resnet_ref.errors import ShapeError

Array = NDArray[Any]


def type_name(value: object) -> str:
    """The name of the value's type, with its module but for Python's own: there are several ndarrays."""
    kind = type(value)
    return kind.__name__ if kind.__module__ == "builtins" else f"{kind.__module__}.{kind.__name__}"


class Arrays(Protocol):
    """The arrays of one kind of device."""

    def owns(self, value: object) -> bool:
        """Whether the value is one of its arrays."""

    def require(self, where: str, value: object) -> None:
        """ShapeError that begins with `where` for a value that is none of its arrays."""

    def contiguous(self, array: Array) -> Array:
        """The array itself, or a copy: C-contiguous, and aligned as kernels want it."""

    def unfit_as_out(self, array: Array) -> str | None:
        """Why kernels cannot write a result into one of its arrays, which is contiguous; None where they can."""

    def take(self, value: Any, dtype: "np.dtype[Any]") -> Array:
        """A NumPy array, or one of its own, as its own: contiguous, in that dtype, perhaps the value itself."""

    def give(self, array: Array) -> Array:
        """One of its arrays in NumPy."""


class HostArrays:
    """NumPy's. device: as errors name it."""

    def __init__(self, device: str) -> None:
        self.device = device

    def owns(self, value: object) -> bool:
        """Whether it is NumPy's."""
        return isinstance(value, np.ndarray)

    def require(self, where: str, value: object) -> None:
        """See Arrays."""
        if not self.owns(value):
            raise ShapeError(f"{where} must be a NumPy array on device {self.device!r}, got {type_name(value)}")

    def contiguous(self, array: Array) -> Array:
        """See Arrays."""
        return np.ascontiguousarray(array)

    def unfit_as_out(self, array: Array) -> str | None:
        """See Arrays."""
        return None if array.flags.writeable else f"be writeable; pass np.empty({list(array.shape)})"

    def take(self, value: Any, dtype: "np.dtype[Any]") -> Array:
        """See Arrays."""
        return np.ascontiguousarray(value, dtype)

    def give(self, array: Array) -> Array:
        """Itself."""
        return array


def emit(result: Array, out: Array | None) -> Array:
    """The result itself, or `out` with the result written into it."""
    if out is None:
        return result
    np.copyto(out, result)
    return out
