"""Where an array is not finite."""

from typing import Any

import numpy as np
from numpy.typing import NDArray

DIVERGED = "A diverged training gives these: take an earlier checkpoint"


def not_finite(numbers: NDArray[Any], shape: tuple[int, ...] | None = None, start: int = 0) -> str | None:
    """The first value that is NaN or infinite and its index, as an error says them; None where all are finite.

    shape, start: of the array whose numbers these are, from `start` on, where they are not all of it.
    """
    finite = np.isfinite(numbers)
    if finite.all():
        return None
    first = int(np.argmin(finite))
    index = np.unravel_index(start + first, numbers.shape if shape is None else shape)
    return f"{numbers.reshape(-1)[first]} at {[int(i) for i in index]}"
