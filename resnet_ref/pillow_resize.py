"""How other frameworks bring an image to a network's size: by Pillow."""

import numpy as np
from numpy.typing import NDArray
from PIL import Image

Array = NDArray[np.float32]
_MOST_PIXELS = 1 << 25  # of an image that is resized whole; of a larger one only what is kept is computed


def smoothed(image: NDArray[np.generic], side: int, height: int, width: int) -> Array:
    """[H, W, C] with its smaller side brought to `side`, bilinear and smoothed where it shrinks; its central crop.

    As torchvision does it with images of Pillow: the larger side is rounded down, the crop's begin to nearest, halves
    to even. uint8 is rounded to whole levels, as there; other numbers are not.
    """
    h, w = image.shape[:2]
    scaled = (side, int(side * w / h)) if h <= w else (int(side * h / w), side)
    top, left = (round((size - kept) / 2) for size, kept in zip(scaled, (height, width), strict=True))
    if scaled[0] * scaled[1] <= _MOST_PIXELS:
        whole = _resized(image, *scaled, Image.Resampling.BILINEAR, (0.0, 0.0, w, h))
        return whole[top : top + height, left : left + width]
    down, across = h / scaled[0], w / scaled[1]
    box = (left * across, top * down, (left + width) * across, (top + height) * down)
    return _resized(image, height, width, Image.Resampling.BILINEAR, box)


def nearest(image: NDArray[np.generic], height: int, width: int) -> Array:
    """The whole of [H, W, C] as [height, width, C], each pixel the nearest one: keras' load_img."""
    return _resized(image, height, width, Image.Resampling.NEAREST, (0.0, 0.0, image.shape[1], image.shape[0]))


def _resized(
    image: NDArray[np.generic],
    height: int,
    width: int,
    how: Image.Resampling,
    box: tuple[float, float, float, float],
) -> Array:
    """The part of the image in `box`, (left, top, right, bottom)."""
    if image.dtype == np.uint8:
        return np.asarray(Image.fromarray(image).resize((width, height), how, box), np.float32)
    channels = (Image.fromarray(image[..., c].astype(np.float32)) for c in range(image.shape[2]))
    return np.stack([np.asarray(channel.resize((width, height), how, box)) for channel in channels], axis=-1)
