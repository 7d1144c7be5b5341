"""What `convert` takes: opened by what it holds, with the words in which slim says it."""

import os
import re
from collections.abc import Callable
from pathlib import Path
from typing import NamedTuple

from resnet_ref.elsewhere import exported, keras, torchvision
from resnet_ref.elsewhere.translation import Translation
from resnet_ref.errors import CheckpointError
from resnet_ref.weights.checkpoint import open_checkpoint
from resnet_ref.weights.elsewhere.keras_h5 import KerasFile
from resnet_ref.weights.elsewhere.safetensors_file import SafetensorsFile
from resnet_ref.weights.elsewhere.torch_zip import TorchZip
from resnet_ref.weights.hdf5 import is_hdf5
from resnet_ref.weights.named_arrays import NamedArrays

_ZIP = b"PK\x03\x04"
_KERAS_MEMBER = b"model.weights.h5"  # in the directory that ends a .keras file
_SAFETENSORS = re.compile(rb"[\x00-\xff]{8}\{", re.DOTALL)
_PICKLE = re.compile(rb"\x80[\x02-\x05]", re.DOTALL)
_START, _END = 64, 1 << 16  # bytes that are looked at


class Opened(NamedTuple):
    """A file's arrays, and what makes slim's of them, strictly or leaving out what it does not use; None: their names
    are slim's already."""

    arrays: NamedArrays
    translate: Callable[[NamedArrays, bool], Translation] | None = None


def open_arrays(path: str | os.PathLike[str]) -> Opened:
    """A TensorFlow checkpoint in any of its ways, or a file of Keras or PyTorch; content decides, not the name.

    CheckpointError where it can be none of these. To be closed by whoever called, as a context manager.
    """
    if not os.fspath(path):  # which is the folder we are in to some, and an unset variable of a shell's to others
        raise CheckpointError("the name of what is to be converted is empty; name a file or a folder")
    start, end = _ends(Path(path))
    if is_hdf5(path) or (start.startswith(_ZIP) and _KERAS_MEMBER in end):
        return Opened(KerasFile(path), keras.translate)
    if start.startswith(_ZIP) or _PICKLE.match(start):
        return Opened(TorchZip(Path(path)), torchvision.translate)
    if _SAFETENSORS.match(start):
        tensors = SafetensorsFile(Path(path))
        is_ours = exported.METADATA in tensors.metadata
        return Opened(tensors, exported.translate if is_ours else torchvision.translate)
    return Opened(open_checkpoint(path))


def _ends(path: Path) -> tuple[bytes, bytes]:
    """How a plain file begins and ends; nothing of anything else."""
    try:
        if not path.is_file():
            return b"", b""
        with path.open("rb") as file:
            start = file.read(_START)
            file.seek(max(0, file.seek(0, os.SEEK_END) - _END))
            return start, file.read(_END)
    except (OSError, ValueError):  # which open_checkpoint will say
        return b"", b""
