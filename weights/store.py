"""The weights file: HDF5, one float32 dataset per variable at slim's name, and root attributes that describe them.

Each dataset is one chunk with a Fletcher-32 checksum. A SHA-256 covers what Fletcher-32 does not: the names, the shapes
and the attributes, and the data once more.
"""

import hashlib
import os
from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import contextmanager
from typing import Any

import h5py
import numpy as np
from numpy.typing import NDArray

from resnet_ref.errors import ResnetRefError, WeightsError
from resnet_ref.weights.description import Description
from resnet_ref.weights.differences import differences, listed
from resnet_ref.weights.hdf5 import creating, read_text, write_text

FORMAT = "resnet-ref weights"
VERSION = 1
_DEEPEST = 16
_MAGIC = b"\x89HDF\r\n\x1a\n"
_ADVICE = "take it from its source again, or make it with `resnet-ref convert`"

Array = NDArray[Any]


def write(
    path: str | os.PathLike[str], names: Iterable[str], read: Callable[[str], Array], description: Description
) -> None:
    """Write read(name) for each name, one at a time, as float32; all or nothing (see `atomic`).

    WeightsError for a name that is no path of scopes, an empty array or one without axes, and for numbers that are
    NaN, infinite or beyond float32.
    """
    digest = _Digest(description)
    with creating(path) as file:
        for name in sorted(names):
            array = _as_float32(f"{path}: {name}", name, read(name))
            digest.add(name, array)
            file.create_dataset(name, data=array, chunks=array.shape, fletcher32=True)
        texts = {"format": FORMAT, "version": str(VERSION), **description.to_attributes(), "sha256": digest.hexdigest()}
        for name, text in texts.items():
            write_text(file, name, text)


def load(
    path: str | os.PathLike[str], shapes_of: Callable[[Mapping[str, Any]], Mapping[str, tuple[int, ...]]]
) -> tuple[dict[str, Array], Description]:
    """The arrays and what the file says of them, once everything about it has been checked.

    shapes_of: from the network's call, as the file describes it, to the name and shape of every variable; nothing is
    allocated before the file's own shapes agree with these. WeightsError names what is missing, unexpected, of another
    shape or dtype, not finite, damaged, or written by a newer version.
    """
    try:
        with _opened(path) as file:
            description = _describe(path, file)
            expected = shapes_of(description.network)
            datasets = dict(_datasets(path, file))
            _compare(path, datasets, expected)
            digest = _Digest(description)
            arrays = {name: _read(path, name, datasets[name], digest) for name in sorted(expected)}
            said = read_text(file, "sha256")
    except ResnetRefError:
        raise
    except (KeyError, OSError, RuntimeError, TypeError, ValueError) as error:  # h5py's words for damage
        raise WeightsError(f"{path} is damaged: HDF5 cannot read it ({error}); {_ADVICE}") from None
    if digest.hexdigest() != said:
        raise WeightsError(f"{path} is damaged: its SHA-256 is {digest.hexdigest()}, it says {said[:100]!r}; {_ADVICE}")
    return {name: arrays[name] for name in expected}, description


def _read(path: str | os.PathLike[str], name: str, dataset: h5py.Dataset, digest: "_Digest") -> Array:
    array = np.empty(dataset.shape, np.float32)
    try:
        dataset.read_direct(array)
    except (OSError, RuntimeError) as error:
        raise WeightsError(f"{path}: {name} is damaged ({error}); {_ADVICE}") from None
    digest.add(name, array)
    _require_finite(f"{path}: {name}", array)
    return array


class _Digest:
    """SHA-256 over the description, then name, shape and bytes of each array in order of names."""

    def __init__(self, description: Description) -> None:
        self._sha = hashlib.sha256()
        for name, text in sorted(description.to_attributes().items()):
            self._sha.update(f"{name}\0{text}\0".encode())

    def add(self, name: str, array: Array) -> None:
        self._sha.update(f"{name}\0{list(array.shape)}\0".encode())
        self._sha.update(array.data)

    def hexdigest(self) -> str:
        return self._sha.hexdigest()


@contextmanager
def _opened(path: str | os.PathLike[str]) -> Iterator[h5py.File]:
    try:
        with open(path, "rb") as raw:
            magic = raw.read(len(_MAGIC))
    except IsADirectoryError:
        raise WeightsError(
            f"{path} is a directory; give the .h5 file in it, or `resnet-ref convert` a checkpoint"
        ) from None
    except OSError as error:
        raise WeightsError(f"cannot read {path}: {error.strerror}") from None
    if magic != _MAGIC:
        raise WeightsError(
            f"{path} is no HDF5 file: it begins with {magic.hex(' ')}, expected {_MAGIC.hex(' ')}; "
            "a TensorFlow checkpoint becomes one with `resnet-ref convert`"
        )
    with h5py.File(path, "r") as file:
        yield file


def _describe(path: str | os.PathLike[str], file: h5py.File) -> Description:
    try:
        found = read_text(file, "format")
        shown = repr(found[:100])
    except (KeyError, ValueError) as error:
        found, shown = "", str(error)
    if found != FORMAT:
        raise WeightsError(
            f"{path} is HDF5 but no weights file of resnet-ref: its 'format' should be {FORMAT!r}, but: {shown}; "
            "make one with save_weights or `resnet-ref convert`"
        )
    if (version := read_text(file, "version")) != str(VERSION):
        raise WeightsError(
            f"{path} has format version {version[:20]!r}, this resnet-ref reads {VERSION}; use a newer resnet-ref"
        )
    return Description.from_attributes({name: read_text(file, name) for name in Description.__dataclass_fields__})


def _datasets(path: str | os.PathLike[str], group: h5py.Group, prefix: str = "") -> Iterator[tuple[str, h5py.Dataset]]:
    """Every dataset below the group by its path; only plain groups and datasets in this file are let through."""
    for key in group:
        name = f"{prefix}{key}"
        if not isinstance(group.get(key, getlink=True), h5py.HardLink):
            raise WeightsError(f"{path}: {name} is a link to something else; a weights file holds its data itself")
        item = group[key]
        if isinstance(item, h5py.Dataset) and not item.is_virtual and not item.external:
            yield name, item
        elif isinstance(item, h5py.Group) and name.count("/") < _DEEPEST:
            yield from _datasets(path, item, f"{name}/")
        else:
            raise WeightsError(f"{path}: {name} is neither a plain group nor a plain dataset; {_ADVICE}")


def _compare(
    path: str | os.PathLike[str], datasets: Mapping[str, h5py.Dataset], expected: Mapping[str, tuple[int, ...]]
) -> None:
    problems = differences({name: dataset.shape or () for name, dataset in datasets.items()}, expected)
    for name, dataset in datasets.items():
        if dataset.shape != expected.get(name):
            continue  # said already
        if dataset.dtype != np.dtype("<f4"):
            problems.append(f"{name} is {dataset.dtype}, expected little-endian float32")
        elif dataset.compression is not None or dataset.chunks not in (None, dataset.shape):
            problems.append(f"{name} is compressed or in several chunks, expected its bytes as they are")
        elif dataset.id.get_storage_size() < dataset.nbytes:  # so that a small file cannot claim a large memory
            problems.append(f"{name} is incomplete, expected {dataset.nbytes} bytes")
    if sum(dataset.id.get_storage_size() for dataset in datasets.values()) > os.path.getsize(path):
        problems.append("its data are larger than the file")
    if problems:
        raise WeightsError(f"{path} does not hold the network it describes: {listed(problems)}; {_ADVICE}")


def _as_float32(where: str, name: str, value: Array) -> Array:
    if not name or any(piece in ("", ".", "..") or "\0" in piece for piece in name.split("/")):
        raise WeightsError(f"{where}: a variable's name is made of scopes, as in a/b/weights; got {name!r}")
    array = np.asarray(value)
    if array.dtype.kind not in "fiu" or array.size == 0 or array.ndim == 0:
        raise WeightsError(
            f"{where} must be numbers with at least one axis and element, got {array.dtype} {list(array.shape)}"
        )
    with np.errstate(over="ignore"):
        array = np.ascontiguousarray(array, "<f4")
    _require_finite(where, array)
    return array


def _require_finite(where: str, array: Array) -> None:
    if not np.isfinite(array).all():
        position = np.unravel_index(int(np.argmin(np.isfinite(array))), array.shape)
        raise WeightsError(
            f"{where} holds {array[position]} at {[int(i) for i in position]}; expected finite float32 numbers. "
            "A diverged training gives these: take an earlier checkpoint"
        )
