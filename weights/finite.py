"""Where an array is not finite."""

from typing import Any

import numpy as np
from numpy.typing import NDArray


def not_finite(array: NDArray[Any]) -> str | None:
    """The first value that is NaN or infinite and its index, as an error says them; None where all are finite."""
    finite = np.isfinite(array)
    if finite.all():
        return None
    index = np.unravel_index(int(np.argmin(finite)), array.shape)
    return f"{array[index]} at {[int(i) for i in index]}"
