"""Are the arrays that slim saw those that our preprocessing makes of the same files? If not, what was done instead?"""

from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
from numpy.typing import NDArray

from resnet_ref.errors import ImageError
from resnet_ref.images import IsolatedReader
from resnet_ref.preprocessing import Preprocessing, resize_bilinear
from resnet_ref.recording import Recording

Array = NDArray[Any]
ROUNDING = 1e-5  # of the largest value; a few float32 roundings
DECODERS_DIFFER = 8  # levels of 255 by which two JPEG decoders were seen to differ: 5
_IMAGENET = (np.array([0.485, 0.456, 0.406], np.float32), np.array([0.229, 0.224, 0.225], np.float32))


@dataclass(frozen=True)
class Inputs:
    """How the recorded arrays compare with ours: max |ours - slim|, and of slim's largest value; and what explains it.

    checked: False where the files or a preprocessing are not known, which `says` tells. cause: a name and a sentence.
    """

    checked: bool
    says: str
    max_error: float = 0.0
    relative: float = 0.0
    cause: tuple[str, str] | None = None

    @property
    def departs(self) -> bool:
        """Whether slim saw other arrays."""
        return self.checked and not self.relative <= ROUNDING


def check_inputs(recording: Recording, pipeline: Preprocessing | None) -> Inputs:
    """Preprocess the recorded files and compare with the recorded arrays, one image at a time."""
    recorded = recording.inputs()
    if pipeline is None:
        return Inputs(False, "the weights file names no preprocessing; slim's arrays are taken as they are")
    if len(recording.facts.images) != len(recorded):
        return Inputs(False, "the recording holds no image files; slim's arrays are taken as they are")
    try:
        with IsolatedReader() as reader:
            images = [reader.decode(recording.image(i), one["name"]) for i, one in enumerate(recording.facts.images)]
        ours = np.stack([pipeline(image) for image in images])
    except ImageError as error:
        return Inputs(False, f"{error}; slim's arrays are taken as they are")
    if ours.shape != recorded.shape:
        says = f"slim saw {list(recorded.shape)}, the weights file's preprocessing gives {list(ours.shape)}"
        return Inputs(True, says, np.inf, np.inf, ("another size of images", says))
    off = float(np.abs(ours - recorded).max(initial=0))
    found = Inputs(True, "what our preprocessing makes of the same files", off, off / _scale(recorded))
    return replace(found, cause=_explain(recording, recorded, images, pipeline, off)) if found.departs else found


def _explain(
    recording: Recording, recorded: Array, images: list[Array], pipeline: Preprocessing, off: float
) -> tuple[str, str] | None:
    """The first preprocessing that gives the recorded arrays."""
    bare = replace(pipeline, means=(0.0, 0.0, 0.0))
    for cut, cropped in _crops(images, bare):
        for order, pixels in {"": cropped, "BGR for RGB": cropped[..., ::-1]}.items():
            for scaling, values in _scalings(pixels, recorded, np.asarray(pipeline.means, np.float32)):
                if float(np.abs(values - recorded).max(initial=0)) <= ROUNDING * _scale(recorded):
                    parts = [part for part in (order, scaling, cut) if part]
                    return ", ".join(parts), "slim saw arrays made in this way, by the test of making them"
    jpegs = all(recording.image(number)[:3] == b"\xff\xd8\xff" for number in range(len(images)))
    if jpegs and off <= DECODERS_DIFFER:
        return "another JPEG decoder", f"all files are JPEGs, and no value differs by more than {off:.3g} levels of 255"
    return None


def _crops(images: list[Array], bare: Preprocessing) -> Iterator[tuple[str, Array]]:
    """Ways to bring the images to the network's size: slim's, and what others do."""
    size = bare.height, bare.width

    def sides(image: Array, whole: Callable[[float], int]) -> tuple[int, int]:
        scale = bare.resize_side / min(image.shape[:2])
        return whole(image.shape[0] * scale), whole(image.shape[1] * scale)

    def truncated(image: Array) -> Array:
        return _central(resize_bilinear(image, *sides(image, int)), bare)

    def half_pixel(image: Array) -> Array:
        return _central(_half_pixel(image, *sides(image, round)), bare)

    ways: dict[str, Callable[[Array], Array]] = {
        "": bare,
        "the longer side rounded down, as slim did in 2016": truncated,
        "resized with half-pixel centres": half_pixel,
        "resized to the crop, without keeping the aspect": lambda image: resize_bilinear(image, *size),
    }
    for name, way in ways.items():
        yield name, np.stack([way(image) for image in images])


def _central(image: Array, size: Preprocessing) -> Array:
    top, left = (image.shape[0] - size.height) // 2, (image.shape[1] - size.width) // 2
    return image[top : top + size.height, left : left + size.width]


def _half_pixel(image: Array, height: int, width: int) -> Array:
    """Bilinear, as TensorFlow 2 and most others do it: pixels are areas, and coordinates those of their centres."""
    for axis, size in enumerate((height, width)):
        n = image.shape[axis]
        source = np.clip((np.arange(size) + 0.5) * (n / size) - 0.5, 0, n - 1)
        below = np.floor(source).astype(np.int64)
        weight = (source - below).reshape([-1 if a == axis else 1 for a in range(3)])
        low, high = (np.take(image, i, axis).astype(np.float64) for i in (below, np.minimum(below + 1, n - 1)))
        image = low + (high - low) * weight
    return image.astype(np.float32)


def _scalings(pixels: Array, recorded: Array, means: Array) -> Iterator[tuple[str, Array]]:
    """What may be done to pixels of 0..255; last, whatever line per channel fits best."""
    less = pixels - means
    yield "", less
    yield "means in the other order", pixels - means[::-1]
    yield "means not subtracted", pixels
    yield "pixels divided by 255", pixels / np.float32(255)
    yield "means subtracted, then divided by 255", less / np.float32(255)
    yield "pixels scaled to [-1, 1]", pixels / np.float32(127.5) - np.float32(1)
    yield "PyTorch's means and deviations", (pixels / np.float32(255) - _IMAGENET[0]) / _IMAGENET[1]
    other = np.median(pixels - recorded, axis=(0, 1, 2))
    yield f"other means: {', '.join(f'{mean:.4g}' for mean in other)}", pixels - other.astype(np.float32)
    lines = [np.polyfit(pixels[..., c].ravel(), recorded[..., c].ravel(), 1) for c in range(pixels.shape[3])]
    shown = "; ".join(f"{slope:.4g} x {intercept:+.4g}" for slope, intercept in lines)
    slopes, intercepts = np.array(lines, np.float64).T
    yield f"another scale: {shown}", (pixels * slopes + intercepts).astype(np.float32)


def _scale(array: Array) -> float:
    return float(np.abs(array).max(initial=0)) or 1.0
