"""From an image to what a network takes. slim's way is vgg_preprocessing.preprocess_for_eval, here in NumPy, equal to
TensorFlow's bit for bit:

    image [H, W, 3] --resize, smaller side to resize_side--> central crop [height, width, 3] --minus means--> float32

Values stay in 0..255 and channels stay RGB: dividing by 255, or BGR, costs a pretrained network its accuracy. Networks
of other frameworks want other pipelines, which their weights files name.
"""

import reprlib
from collections.abc import Mapping
from dataclasses import dataclass, fields
from typing import Any, Self

import numpy as np
from numpy.typing import NDArray

from resnet_ref.errors import ImageError, ShapeError, WeightsError
from resnet_ref.kernels.scalars import real, whole
from resnet_ref.pillow_resize import nearest, smoothed

# Far above any image a ResNet is given; keeps a file from claiming a crop that cannot be allocated.
MAX_SIDE = 8192
_INT32_MAX = 2**31 - 1
_FLOAT32_MAX = float(np.finfo(np.float32).max)
_FLOAT32_TINY = float(np.finfo(np.float32).tiny)


# The parameters of each pipeline, beside its name.
PIPELINES = {
    "vgg": ("resize_side", "height", "width", "means"),
    "torchvision": ("resize_side", "height", "width", "means", "deviations"),
    "keras": ("height", "width", "means"),
}


# What they are for ImageNet, where that is not slim's.
_IMAGENET: dict[str, dict[str, Any]] = {
    "vgg": {},
    "torchvision": {"means": (123.675, 116.28, 103.53), "deviations": (58.395, 57.12, 57.375)},
    "keras": {"means": (123.68, 116.779, 103.939)},
}


@dataclass(frozen=True)
class Preprocessing:
    """A preprocessing pipeline and its parameters; the defaults are slim's for ImageNet.

    name: "vgg", slim's; "torchvision": the smaller side resized by Pillow, which smooths; "keras": the whole image
    squeezed into height x width, by the nearest pixel. resize_side: the smaller side after the resize. height, width:
    the central crop, in pixels. means: subtracted from R, G and B, in units of 0..255; deviations: what is then divided
    by. Raises WeightsError on any other value, and for a parameter that the pipeline has not.
    """

    name: str = "vgg"
    resize_side: int = 256
    height: int = 224
    width: int = 224
    means: tuple[float, float, float] = (123.68, 116.78, 103.94)
    deviations: tuple[float, float, float] = (1.0, 1.0, 1.0)

    def __post_init__(self) -> None:
        if not isinstance(self.name, str) or self.name not in PIPELINES:
            raise _parameter_error("name", f"one of {', '.join(PIPELINES)}", self.name)
        has_side = "resize_side" in PIPELINES[self.name]
        if has_side:
            self._set("resize_side", _side("resize_side", self.resize_side, MAX_SIDE, ""))
        most, what = (self.resize_side, ", the resize_side") if has_side else (MAX_SIDE, "")
        self._set("height", _side("height", self.height, most, what))
        self._set("width", _side("width", self.width, most, what))
        self._set("means", _three("means", self.means))
        self._set("deviations", _three("deviations", self.deviations))
        if min(self.deviations) < _FLOAT32_TINY:
            raise _parameter_error("deviations", "three numbers above 0 in float32", self.deviations)
        if (255 + max(map(abs, self.means))) / min(self.deviations) > _FLOAT32_MAX:
            raise _parameter_error("deviations", "three so large that no quotient overflows float32", self.deviations)
        for field in fields(self):
            if field.name not in ("name", *PIPELINES[self.name]) and getattr(self, field.name) != field.default:
                raise _parameter_error(field.name, f"nothing, since {self.name!r} has none", getattr(self, field.name))

    def _set(self, name: str, value: object) -> None:
        object.__setattr__(self, name, value)  # of a frozen class, while it is made

    @classmethod
    def from_json(cls, description: Mapping[str, Any]) -> Self:
        """The pipeline that to_json described; parameters left out are its own for ImageNet. Raises WeightsError."""
        if not isinstance(description, Mapping):
            raise _parameter_error("", "an object with a name and parameters", description)
        if "name" not in description:
            raise _parameter_error("name", '"vgg"', None)
        known = ("name", *PIPELINES[cls(name=description["name"]).name])
        if unknown := [key for key in description if key not in known]:
            raise _parameter_error("", f"only the parameters {', '.join(known)}", unknown[0])
        return cls(**{**_IMAGENET[description["name"]], **description})

    def to_json(self) -> dict[str, Any]:
        """Name and parameters as JSON has them, for a weights file."""
        values = {name: getattr(self, name) for name in ("name", *PIPELINES[self.name])}
        return {name: list(value) if isinstance(value, tuple) else value for name, value in values.items()}

    def __call__(self, image: NDArray[Any]) -> NDArray[np.float32]:
        """RGB image [H, W, 3], uint8 or float in 0..255 -> what the network takes, [height, width, 3] float32.

        Any H and W from 1 up; of images that are long and thin only the crop is computed. Raises ImageError.
        """
        image = _checked(image)
        if image.shape[2] != 3:
            raise ImageError(
                f"image: expected RGB, [height, width, 3], got shape {list(image.shape)}; "
                "repeat a grey channel three times, drop an alpha channel"
            )
        normalised = self._cropped(image) - np.asarray(self.means, np.float32)
        if self.name != "vgg":
            normalised /= np.asarray(self.deviations, np.float32)
        return normalised

    def _cropped(self, image: NDArray[Any]) -> NDArray[np.float32]:
        """[height, width, 3], in 0..255."""
        if self.name == "torchvision":
            return smoothed(image, self.resize_side, self.height, self.width)
        if self.name == "keras":
            return nearest(image, self.height, self.width)
        resized = _aspect_preserving_size(image.shape[0], image.shape[1], self.resize_side)
        offset = ((resized[0] - self.height) // 2, (resized[1] - self.width) // 2)
        return _resize_window(image, resized, offset, (self.height, self.width))

    def pixels(self, prepared: NDArray[np.float32]) -> NDArray[np.float32]:
        """What was prepared, [..., 3], back in 0..255."""
        return prepared * np.asarray(self.deviations, np.float32) + np.asarray(self.means, np.float32)


def resize_bilinear(image: NDArray[Any], height: int, width: int) -> NDArray[np.float32]:
    """Resize [H, W, C], uint8 or float, to [height, width, C] float32 as tf.compat.v1.image.resize_bilinear does.

    align_corners=False, half_pixel_centers=False: source coordinate = destination * in / out. Raises ImageError for an
    array that is no image, ShapeError for a height or width below 1.
    """
    if height < 1 or width < 1:
        raise ShapeError(f"resize_bilinear: expected a height and width of at least 1, got {height} x {width}")
    return _resize_window(_checked(image), (height, width), (0, 0), (height, width))


def _resize_window(
    image: NDArray[Any], resized: tuple[int, int], offset: tuple[int, int], size: tuple[int, int]
) -> NDArray[np.float32]:
    """The window [offset, offset + size) of `image` resized to `resized`, without computing what lies outside.

    A 1 x 100000 image scaled to 256 rows would take 79 GB; its central crop takes what any other crop takes.
    """
    top, bottom, y = _neighbours(image.shape[0], resized[0], offset[0], size[0])
    left, right, x = _neighbours(image.shape[1], resized[1], offset[1], size[1])
    # NaN spreads as in TensorFlow, and as quietly.
    with np.errstate(over="ignore", invalid="ignore"):
        upper = _lerp(_gather(image, top, left), _gather(image, top, right), x[:, None])
        lower = _lerp(_gather(image, bottom, left), _gather(image, bottom, right), x[:, None])
        return _lerp(upper, lower, y[:, None, None])


def _neighbours(
    size: int, resized: int, start: int, count: int
) -> tuple[NDArray[np.int64], NDArray[np.int64], NDArray[np.float32]]:
    """For `count` destinations from `start` on: the source index below, the one above, and the float32 weight above."""
    scale = np.float32(size) / np.float32(resized)
    source = np.arange(start, start + count).astype(np.float32) * scale
    floor = np.floor(source)
    # Beyond 2**24 float32 may round the last coordinates past the edge, hence the bound on `below` too.
    below = np.minimum(floor.astype(np.int64), size - 1)
    # The ceiling, not below + 1: a whole coordinate reads one pixel, so that the next one's NaN stays out.
    above = np.minimum(np.ceil(source).astype(np.int64), size - 1)
    return below, above, source - floor


def _gather(image: NDArray[Any], rows: NDArray[np.int64], columns: NDArray[np.int64]) -> NDArray[np.float32]:
    return image[rows[:, None], columns].astype(np.float32)


def _lerp(a: NDArray[np.float32], b: NDArray[np.float32], weight: NDArray[np.float32]) -> NDArray[np.float32]:
    """a + (b - a) * weight, each step rounded to float32: TensorFlow's order, which the last bit depends on."""
    return a + (b - a) * weight


def _aspect_preserving_size(height: int, width: int, side: int) -> tuple[int, int]:
    """The smaller side becomes `side`, the other grows alike: float32, rounded half to even, as slim has it."""
    scale = np.float32(side) / np.float32(min(height, width))
    resized = int(np.rint(np.float32(height) * scale)), int(np.rint(np.float32(width) * scale))
    if max(resized) > _INT32_MAX:
        raise ImageError(
            f"image: expected sides that stay below 2**31 when the smaller becomes {side}, "
            f"got {height} x {width}; cut the long side"
        )
    return resized


def _checked(image: NDArray[Any]) -> NDArray[Any]:
    image = np.asarray(image)
    if image.ndim != 3 or 0 in image.shape:
        raise ImageError(
            f"image: expected [height, width, channels], none of them 0, got shape {list(image.shape)}; "
            "pass one image at a time"
        )
    if image.dtype != np.uint8 and not np.issubdtype(image.dtype, np.floating):
        raise ImageError(
            f"image: expected uint8 or float values in 0..255, got dtype {image.dtype}; convert with .astype('uint8')"
        )
    return image


def _side(parameter: str, value: object, limit: int, what: str) -> int:
    side = whole(value)
    if side is None or not 1 <= side <= limit:
        raise _parameter_error(parameter, f"an integer from 1 to {limit}{what}", value)
    return side


def _three(parameter: str, numbers: object) -> tuple[float, ...]:
    found = list(map(real, numbers)) if isinstance(numbers, list | tuple | np.ndarray) else []
    fit = tuple(float(number) for number in found if number is not None and abs(number) <= _FLOAT32_MAX)
    if len(found) != 3 or len(fit) != 3:
        raise _parameter_error(parameter, "three finite numbers, for R, G and B", numbers)
    return fit


def _parameter_error(parameter: str, expected: str, got: object) -> WeightsError:
    where = f"preprocessing, {parameter}" if parameter else "preprocessing"
    return WeightsError(f"{where}: expected {expected}, got {reprlib.repr(got)}; correct it, or save the weights again")
