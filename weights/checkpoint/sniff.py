"""What a file is, by its content, and what to tell somebody who took it for a checkpoint."""

from __future__ import annotations

import re
from enum import Enum
from pathlib import Path

from resnet_ref.errors import CheckpointError
from resnet_ref.weights.checkpoint.table import MAGIC

_TAR_MAGIC_AT = 257
# The first entry of a checkpoint's table: nothing shared with a key before it, the empty key, a value's length, and
# the first field of its value (V1: 0a, V2: 08).
TABLE_START = re.compile(rb"\x00\x00[\x80-\xff]{0,4}[\x00-\x7f][\x08\x0a]")

_ADVICE = {
    b"\x89HDF\r\n\x1a\n": "an HDF5 file: use it directly as a weights file; Keras' are converted by their own name",
    b"PK\x03\x04": "a zip file (Keras' .keras, NumPy's .npz or PyTorch's .pth, perhaps): save a TensorFlow checkpoint",
    b"\x89PNG": "a PNG image: name the checkpoint instead",
    b"\xff\xd8\xff": "a JPEG image: name the checkpoint instead",
    b"\xfd7zXZ": "compressed with xz: unpack it and name what was inside",
    b"BZh": "compressed with bzip2: unpack it and name what was inside",
    b"version https://git-lfs": "a Git LFS pointer, not the file itself: fetch it with git lfs pull",
    b"<": "a web page or other markup, a failed download perhaps: download it again",
}


class Content(Enum):
    """The kinds of file that matter here."""

    TABLE = "a table"
    TABLE_CUT = "the beginning of a table"
    GZIP = "gzip"
    TAR = "tar"
    OTHER = "something else"


def content_of(path: Path, name: str) -> Content:
    """Tell what lies at `path`; raises CheckpointError, which calls it `name`, if it cannot be read."""
    try:
        with path.open("rb") as file:
            start = file.read(_TAR_MAGIC_AT + 5)
            file.seek(max(0, file.seek(0, 2) - len(MAGIC)))
            end = file.read(len(MAGIC))
    except OSError as error:
        raise CheckpointError(f"{name}: cannot be read: {error.strerror or error}.") from error
    if end == MAGIC:
        return Content.TABLE
    if start.startswith(b"\x1f\x8b"):
        return Content.GZIP
    if start[_TAR_MAGIC_AT:] == b"ustar":
        return Content.TAR
    return Content.TABLE_CUT if TABLE_START.match(start) else Content.OTHER


def explain(path: Path, name: str) -> CheckpointError:
    """Return the error for a file that is no checkpoint: what it is instead, and what to do."""
    with path.open("rb") as file:
        start = file.read(64)
    advice = next((text for magic, text in _ADVICE.items() if start.startswith(magic)), None)
    if advice is None and not start:
        advice = "an empty file: copy or download it again"
    if advice is None and start.isascii() and start.decode().isprintable():
        advice = "a text file: name the checkpoint instead"
    if advice is None:
        advice = (
            "neither that nor anything known, or it is cut off: name a .ckpt or .index file, their folder or .tar.gz"
        )
    return CheckpointError(f"{name}: expected a TensorFlow checkpoint, got {advice}.")
