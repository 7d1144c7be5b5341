"""Image files as arrays: 8-bit RGB, upright, whatever the file holds.

slim decodes with tf.image.decode_jpeg, which ignores orientation; a photograph that needs turning differs from slim's
for that reason, and two JPEG decoders may differ by a few levels.
"""

import io
import os
import re
import stat
import threading
import warnings
from collections.abc import Callable, Iterable
from pathlib import Path
from typing import Any, BinaryIO, Self, TypeVar

import numpy as np
from numpy.typing import NDArray
from PIL import ExifTags, Image, UnidentifiedImageError

from resnet_ref.errors import ImageError
from resnet_ref.isolation import Pool

T = TypeVar("T")
# Formats with a signature, decoded inside this process: Pillow would run Ghostscript for EPS, takes almost anything for
# TGA, and counts HDF5 files among images.
FORMATS = ("AVIF", "BMP", "GIF", "ICO", "JPEG", "JPEG2000", "MPO", "PNG", "PPM", "QOI", "TIFF", "WEBP")

# Pixels: Pillow keeps 8 bytes for each row in each copy of an image, and width and height may change places.
MOST_A_SIDE = 1 << 20
# Of a child that decodes: the most pixels that are let in take so much where they have transparency.
_DECODING = 4 << 30
_DECODING_SECONDS = 60.0

# What undoes each EXIF orientation; 1 needs nothing.
_UPRIGHT = {
    2: Image.Transpose.FLIP_LEFT_RIGHT,
    3: Image.Transpose.ROTATE_180,
    4: Image.Transpose.FLIP_TOP_BOTTOM,
    5: Image.Transpose.TRANSPOSE,
    6: Image.Transpose.ROTATE_270,
    7: Image.Transpose.TRANSVERSE,
    8: Image.Transpose.ROTATE_90,
}


class _Silence:
    """No warnings while anyone is in here. Filters belong to the process: the first sets them, the last restores them,
    and threads decode at the same time."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._inside = 0
        self._before = warnings.catch_warnings()

    def __enter__(self) -> None:
        with self._lock:
            if self._inside == 0:
                self._before = warnings.catch_warnings()
                self._before.__enter__()
                warnings.simplefilter("ignore")
            self._inside += 1

    def __exit__(self, *_: object) -> None:
        with self._lock:
            self._inside -= 1
            if self._inside == 0:
                self._before.__exit__(None, None, None)


_silence = _Silence()


def read_image(path: str | os.PathLike[str]) -> NDArray[np.uint8]:
    """The image at `path` as uint8 [H, W, 3] RGB, its EXIF orientation applied.

    Transparency shows white; 16-bit grey is scaled to 8 bits, rounded; CMYK is converted without a colour profile; of
    several frames or pages the first counts. Raises ImageError for anything that is no such image, beyond twice
    Pillow's Image.MAX_IMAGE_PIXELS, and beyond MOST_A_SIDE pixels a side.
    """
    path = Path(path)
    status = _status(path)
    if stat.S_ISDIR(status.st_mode):
        raise _error(path, "an image file", "a directory", "name a file in it")
    if not stat.S_ISREG(status.st_mode):
        raise _error(path, "an image file", "a pipe, socket or device", "copy its content into a file")
    if status.st_size == 0:
        raise _error(path, "an image file", "an empty file", "fetch or save it again")
    try:
        with path.open("rb") as file:
            return _decoded(path, file)
    except OSError as error:
        raise _unreachable(path, error) from error


def decode_image(data: bytes, name: str) -> NDArray[np.uint8]:
    """What `read_image` makes of a file with these bytes; `name` is what errors call it."""
    return _decoded(Path(name), io.BytesIO(data))


def _decoded(path: Path, file: BinaryIO) -> NDArray[np.uint8]:
    try:
        with _silence, Image.open(file, formats=_formats()) as image:
            if max(image.size) > MOST_A_SIDE:
                got = f"{image.width:,} x {image.height:,}"
                raise _error(path, f"at most {MOST_A_SIDE:,} pixels a side", got, "scale the image down")
            return _rgb(path, _upright(image))
    except ImageError:
        raise
    except UnidentifiedImageError as error:
        raise _error(path, f"an image ({', '.join(_formats())})", "something else", "convert it to PNG") from error
    except Image.DecompressionBombError as error:
        limit = 2 * (Image.MAX_IMAGE_PIXELS or 0)
        raise _error(path, f"at most {limit:,} pixels", str(error), "scale the image down") from error
    except Exception as error:  # What Pillow raises on damaged files is not documented, and is of every kind.
        got = f"{type(error).__name__}: {error}"
        raise _error(path, "an image that can be decoded", got, "fetch it again, or save it anew as PNG") from error


def read_and(path: Path, then: Callable[[NDArray[np.uint8]], T]) -> T:
    """What `then` makes of the image at `path`."""
    return then(read_image(path))


class IsolatedReader:
    """`read_and` in up to `count` child processes, for calls from any threads: what a decoder dies of is an ImageError.

    `then` runs in the child, so that what is sent back is small; pickle must know it. The first child starts at once.
    """

    def __init__(self, count: int = 1) -> None:
        self._pool = Pool(count, _DECODING, _formats)

    def __call__(self, path: Path, then: Callable[[NDArray[np.uint8]], T]) -> T:
        """What `then` makes of the image at `path`."""
        return self._pool.call(read_and, path, then, what=str(path), error=ImageError, seconds=_DECODING_SECONDS)

    def decode(self, data: bytes, name: str) -> NDArray[np.uint8]:
        """As decode_image."""
        return self._pool.call(decode_image, data, name, what=name, error=ImageError, seconds=_DECODING_SECONDS)

    def check(self, path: Path) -> None:
        """ImageError unless it is an image."""
        self(path, np.shape)

    def close(self) -> None:
        """End the children, also those at work."""
        self._pool.close()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()


def find_images(paths: Iterable[str | os.PathLike[str]]) -> list[Path]:
    """Each file among `paths`, and for each directory the images directly in it, sorted as people number (2 before 10).

    In a directory the suffix decides what is an image, and hidden files are not. Raises ImageError for a missing path,
    an empty one (which Path takes for the current directory) and a directory without images.
    """
    paths = list(paths)
    if "" in paths:
        raise ImageError("an empty name: expected an image or a folder; name one")
    return [image for path in map(Path, paths) for image in _images_at(path)]


def _images_at(path: Path) -> list[Path]:
    if not stat.S_ISDIR(_status(path).st_mode):
        return [path]
    suffixes = {suffix for suffix, name in Image.registered_extensions().items() if name in FORMATS}
    try:
        entries = [entry for entry in path.iterdir() if not entry.name.startswith(".") and not entry.is_dir()]
    except OSError as error:
        raise _unreachable(path, error) from error
    images = [entry for entry in entries if entry.suffix.lower() in suffixes]
    if not images:
        got = f"a directory with {len(entries)} files, none of them such"
        raise _error(path, f"images ({' '.join(sorted(suffixes))})", got, "name the directory that holds the images")
    return sorted(images, key=_natural)


def _natural(path: Path) -> tuple[list[str | int], str]:
    parts = re.split(r"([0-9]+)", path.name.casefold())
    return [int(part) if index % 2 else part for index, part in enumerate(parts)], path.name


def _upright(image: Image.Image) -> Image.Image:
    # ImageOps.exif_transpose also writes the other tags anew, and fails where one of them is damaged.
    image.load()  # Pillow turns a TIFF while loading it, and then removes its orientation.
    try:
        turn = _UPRIGHT.get(image.getexif().get(ExifTags.Base.Orientation, 1))
    except SyntaxError:  # No EXIF header: Pillow reads such a JPEG, but no such PNG.
        return image
    return image if turn is None else image.transpose(turn)


def _rgb(path: Path, image: Image.Image) -> NDArray[np.uint8]:
    if image.mode == "F":
        raise _error(path, "8- or 16-bit integer pixels", "32-bit float ones", "save it as an 8-bit PNG")
    if image.mode.startswith("I"):
        return _rgb_from_16_bit_grey(path, image)
    if image.has_transparency_data:
        white = Image.new("RGBA", image.size, "white")
        image = Image.alpha_composite(white, image.convert("RGBA"))
    return np.array(image.convert("RGB"))


def _rgb_from_16_bit_grey(path: Path, image: Image.Image) -> NDArray[np.uint8]:
    grey: NDArray[Any] = np.array(image).astype(np.int32)
    if grey.min() < 0 or grey.max() > 65535:
        got = f"values from {grey.min()} to {grey.max()}"
        raise _error(path, "grey values from 0 to 65535", got, "save it as an 8- or 16-bit PNG")
    if "transparency" in image.info:
        grey[grey == image.info["transparency"]] = 65535
    # 65535 is 255 * 257, so this is value * 255 / 65535 to the nearest integer; there are no ties.
    return np.repeat(((grey + 128) // 257).astype(np.uint8)[..., None], 3, axis=2)


def _formats() -> tuple[str, ...]:
    """Those of FORMATS that this build of Pillow decodes."""
    Image.init()
    return tuple(name for name in FORMATS if name in Image.OPEN)


def _status(path: Path) -> os.stat_result:
    try:
        return path.stat()
    except (OSError, ValueError) as error:
        raise _unreachable(path, error) from error


def _unreachable(path: Path, error: Exception) -> ImageError:
    got = getattr(error, "strerror", None) or str(error)
    return _error(path, "an image file or a directory of images", got, "check the path and its permissions")


def _error(path: Path, expected: str, got: str, advice: str) -> ImageError:
    return ImageError(" ".join(f"{path}: expected {expected}, got {got}; {advice}".splitlines()))
