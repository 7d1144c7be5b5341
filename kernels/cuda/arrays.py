"""The arrays of a CUDA device, as tiers and interpreters take them."""

from typing import Any

import numpy as np

from resnet_ref.errors import ShapeError
from resnet_ref.kernels.arrays import Array, type_name
from resnet_ref.kernels.cuda.launch import ALIGNMENT
from resnet_ref.kernels.cuda.runtime import Runtime


class DeviceArrays:
    """CuPy's on one device (see arrays.Arrays)."""

    def __init__(self, runtime: Runtime) -> None:
        self.runtime = runtime

    def owns(self, value: object) -> bool:
        """Whether it is an array on this device."""
        return self.runtime.owns(value)

    def require(self, where: str, value: object) -> None:
        """See Arrays."""
        if self.owns(value):
            return
        if self.runtime.is_array(value):
            got, what = "one on another device", "copy it over with cupy.asarray inside `with cupy.cuda.Device(i)`"
        else:
            got, what = type_name(value), "cupy.asarray(array) copies it there"
        raise ShapeError(f"{where} must be a CuPy array on device {self.runtime}, got {got}; {what}")

    def contiguous(self, array: Array) -> Array:
        """See Arrays."""
        return self.runtime.contiguous(array, array.dtype)

    def unfit_as_out(self, array: Array) -> str | None:
        """See Arrays."""
        if self.runtime.contiguous(array, array.dtype) is array:
            return None
        return f"begin at a multiple of {ALIGNMENT} bytes; pass cupy.empty({list(array.shape)}, cupy.float32)"

    def take(self, value: Any, dtype: "np.dtype[Any]") -> Array:
        """See Arrays; ShapeError for an array of another device."""
        if self.runtime.is_array(value):
            self.require("an array", value)
            return self.runtime.contiguous(value, dtype)
        return self.runtime.upload(np.ascontiguousarray(value, dtype))

    def give(self, array: Array) -> Array:
        """A copy."""
        return self.runtime.download(array)
