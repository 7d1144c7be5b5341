"""What HDF5 says about a weights file: all that libhdf5 is asked for, in one call that can run in a child process.

libhdf5 is C, and these bytes may come from anybody. Only texts, names, shapes and places are taken from it: the numbers
lie in such a file as they are, and whoever calls this reads them without HDF5.
"""

import io
from collections.abc import Mapping
from functools import cache
from typing import NamedTuple

import h5py
import numpy as np

from resnet_ref.errors import WeightsError
from resnet_ref.weights import seal
from resnet_ref.weights.description import Description
from resnet_ref.weights.hdf5 import identity_of, incomplete, opened, plain_datasets, read_format, read_text
from resnet_ref.weights.plain_file import Identity, Path

FORMAT = "resnet-ref weights"
CONTENT_VERSION = 1  # what the attribute `version` says
ADVICE = "take it from its source again, or make it with `resnet-ref convert`"
_LONGEST_DESCRIPTION = 3 << 20


class Stored(NamedTuple):
    """An array of float32, little-endian: its shape, and the place of its first byte in the file. problem: why its
    bytes do not lie there so, or None."""

    shape: tuple[int, ...]
    offset: int
    nbytes: int
    problem: str | None


class Contents(NamedTuple):
    """identity: of the file that was read. texts: the root attributes that describe it. sha256: what it says of its
    content. arrays: by name."""

    identity: Identity
    texts: dict[str, str]
    sha256: str
    arrays: dict[str, Stored]


def contents(path: str) -> Contents:
    """The contents of a weights file, whose seal the caller has verified. WeightsError."""
    with opened(path, WeightsError, ADVICE) as file:
        read_format(file, path, FORMAT, CONTENT_VERSION, WeightsError, ADVICE)
        texts = {name: read_text(file, name) for name in Description.__dataclass_fields__}
        require_short(path, texts)
        arrays = {name: _stored(file, dataset) for name, dataset in plain_datasets(path, file, WeightsError)}
        return Contents(identity_of(file), texts, read_text(file, "sha256"), arrays)


def require_short(path: Path, texts: Mapping[str, str]) -> None:
    """WeightsError for a description that would fill the memory once its JSON is read."""
    if (size := sum(map(len, texts.values()))) > _LONGEST_DESCRIPTION:
        raise WeightsError(
            f"{path}: its description has {size:,} characters, more than {_LONGEST_DESCRIPTION:,}; shorten the labels "
            "or what it says of its source"
        )


def _stored(file: h5py.File, dataset: h5py.Dataset) -> Stored:
    if dataset.shape is None:
        return Stored((), 0, 0, "is HDF5's empty value, expected an array")
    shape, nbytes = tuple(int(n) for n in dataset.shape), int(dataset.nbytes)
    problem = _other_type(dataset) or incomplete(dataset, dataset.shape)
    offset = None if problem else _offset(file, dataset)
    if not problem and offset is None:
        problem = "does not lie in the file in one piece, expected its bytes as they are"
    return Stored(shape, offset or 0, nbytes, problem)


def _other_type(dataset: h5py.Dataset) -> str | None:
    if dataset.dtype != np.dtype("<f4"):
        return f"is {dataset.dtype}, expected little-endian float32"
    if not dataset.id.get_type().equal(h5py.h5t.IEEE_F32LE):  # such as bfloat16, which h5py calls float32
        return f"is another float of {dataset.id.get_type().get_size()} bytes, expected float32"
    return None


def _offset(file: h5py.File, dataset: h5py.Dataset) -> int | None:
    """Where its bytes begin, from the first of the file."""
    if dataset.chunks is None:
        found: int | None = dataset.id.get_offset()
        return found
    if dataset.id.get_num_chunks() != 1 or (told := _told(dataset)) is None:
        return None
    return told + (file.userblock_size if told_from_the_seal_on() else 0)


@cache
def told_from_the_seal_on() -> bool:
    """Whether this HDF5 counts the place of a chunk from the end of the user block: before 1.14.4 it did."""
    array = np.arange(8, dtype="<f4")
    made = io.BytesIO()
    with h5py.File(made, "w", userblock_size=seal.BYTES) as file:
        file.create_dataset("a", data=array, chunks=array.shape)
    with h5py.File(made, "r") as file:
        return made.getvalue().index(array.tobytes()) != _told(file["a"])


def _told(dataset: h5py.Dataset) -> int | None:
    place: int | None = dataset.id.get_chunk_info(0).byte_offset
    return place
