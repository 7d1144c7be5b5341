"""The types of elements in other frameworks' files, by NumPy's names, and the NumPy types that they become."""

import numpy as np

from resnet_ref.weights.checkpoint.dtypes import DType

_PLAIN = ("float16", "float32", "float64", "int8", "int16", "int32", "int64", "uint8", "uint16", "uint32", "uint64")
_ELEMENTS = {name: DType(name, np.dtype(name).newbyteorder("<"), np.dtype(name)) for name in _PLAIN} | {
    "bool": DType("bool", np.dtype(np.uint8), np.dtype(np.bool_)),
    "bfloat16": DType("bfloat16", np.dtype("<u2"), np.dtype(np.float32)),
}


def element_of(name: str) -> DType:
    """The type of that name; one that is not among NumPy's (nor bfloat16) cannot be read."""
    return _ELEMENTS.get(name, DType(name))
