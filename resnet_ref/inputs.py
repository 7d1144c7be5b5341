"""Turns what a user passes as images into an array the kernels take."""

from typing import Any

import numpy as np

from resnet_ref.errors import ShapeError
from resnet_ref.kernels import Tier
from resnet_ref.kernels.arrays import Array, type_name


def as_images(images: Any, tier: Tier, dtype: "np.dtype[Any]") -> Array:
    """[N, H, W, C] in `dtype`, C-contiguous, from an array, anything with __array__, or anything with DLPack.

    In NumPy, unless the tier is a gpu's and the images are in its memory; then they stay there. Any real dtype is
    converted. The input is not modified and may be returned itself. ShapeError for another rank, an empty height, width
    or depth, complex numbers, strings or objects, and for images on another gpu.
    """
    adopted = None if tier.runtime is None else tier.runtime.adopt(images)
    array = _in_numpy(images) if adopted is None else adopted
    if array.dtype.kind not in "buif":
        raise ShapeError(f"images must be real numbers, got dtype {array.dtype} from {type(images).__name__}")
    if array.ndim != 4 or 0 in array.shape[1:]:
        hint = "; for one image write images[None]" if array.ndim == 3 else ""
        raise ShapeError(f"images must be [N, H, W, C], none of H, W, C empty; got shape {list(array.shape)}{hint}")
    return np.ascontiguousarray(array, dtype) if adopted is None else tier.arrays.take(array, dtype)


def _in_numpy(images: Any) -> Array:
    if hasattr(images, "__dlpack__") and not hasattr(images, "__array__"):
        images = np.from_dlpack(images)
    try:
        return np.asarray(images)
    except (TypeError, ValueError) as error:
        raise ShapeError(f"images must be an array [N, H, W, C], got {type_name(images)}: {error}") from None
