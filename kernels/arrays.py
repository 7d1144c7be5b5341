"""What the kernels call an array, and how a result reaches `out`."""

from typing import Any

import numpy as np
from numpy.typing import NDArray

Array = NDArray[Any]


def emit(result: Array, out: Array | None) -> Array:
    """The result itself, or `out` with the result written into it."""
    if out is None:
        return result
    np.copyto(out, result)
    return out
