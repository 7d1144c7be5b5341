"""What a checkpoint says about a variable without reading it."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Any

import numpy as np

from resnet_ref.weights.checkpoint.dtypes import DType


@dataclass(frozen=True)
class Variable:
    """One variable of a checkpoint.

    `dtype` is the NumPy type of the array that `read` returns, or TensorFlow's name of a type that is no such array
    (strings, resources, complex numbers). `stored` is TensorFlow's name in either case: "bfloat16" has dtype float32.
    `nbytes` counts the bytes of that array, 0 if there is none.
    """

    dtype: np.dtype[Any] | str
    shape: tuple[int, ...]
    nbytes: int
    stored: str

    @classmethod
    def of(cls, dtype: DType, shape: tuple[int, ...]) -> Variable:
        """Describe a tensor of TensorFlow's type `dtype`."""
        if dtype.array is None:
            return cls(dtype.name, shape, 0, dtype.name)
        return cls(dtype.array, shape, math.prod(shape) * dtype.array.itemsize, dtype.name)
