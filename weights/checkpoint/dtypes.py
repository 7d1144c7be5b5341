"""TensorFlow's element types (tensorflow/core/framework/types.proto) and the NumPy types they become."""

from __future__ import annotations

from typing import Any, NamedTuple

import numpy as np
import numpy.typing as npt

from resnet_ref.weights.checkpoint.wire import DamagedError


class DType(NamedTuple):
    """One element type: TensorFlow's name, NumPy's type of the stored bytes and of the array that is returned.

    `values` is the field of TensorProto that holds such elements in a V1 checkpoint. None: cannot be read.
    """

    name: str
    stored: np.dtype[Any] | None = None
    array: np.dtype[Any] | None = None
    values: int | None = None


def _plain(name: str, values: int | None = None) -> DType:
    dtype = np.dtype(name).newbyteorder("<")
    return DType(name, dtype, dtype.newbyteorder("="), values)


_BY_NUMBER = {
    1: _plain("float32", 5),
    2: _plain("float64", 6),
    3: _plain("int32", 7),
    4: _plain("uint8", 7),
    5: _plain("int16", 7),
    6: _plain("int8", 7),
    7: DType("string"),
    8: DType("complex64"),
    9: _plain("int64", 10),
    10: DType("bool", np.dtype(np.uint8), np.dtype(np.bool_), 11),
    14: DType("bfloat16", np.dtype("<u2"), np.dtype(np.float32)),
    17: _plain("uint16", 7),
    18: DType("complex128"),
    19: DType("float16", np.dtype("<f2"), np.dtype(np.float16), 13),
    20: DType("resource"),
    21: DType("variant"),
    22: _plain("uint32"),
    23: _plain("uint64"),
}


def dtype_of(number: int) -> DType:
    """Return the type with TensorFlow's `number`; one that is not known here has that number in its name."""
    return _BY_NUMBER.get(number, DType(f"TensorFlow type {number}"))


def to_array(stored: npt.NDArray[Any], dtype: DType) -> npt.NDArray[Any]:
    """Turn elements as stored into `dtype.array`, exactly; bfloat16 widens to float32. Raises DamagedError."""
    if dtype.name == "bfloat16":
        return (stored.astype(np.uint32) << np.uint32(16)).view(np.float32)
    if dtype.name == "bool":
        if stored.size and stored.max() > 1:
            raise DamagedError(f"a bool is 0 or 1, got {stored.max()}")
        return stored.view(np.bool_)
    return stored.astype(dtype.array, copy=False)
