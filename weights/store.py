"""The weights file: HDF5, one float32 dataset per variable at slim's name, and root attributes that describe them.

Each dataset is one chunk with a Fletcher-32 checksum. A SHA-256 covers what Fletcher-32 does not: the names, the shapes
and the attributes, and the data once more. It is the same for equal content.

That is version 1, whose HDF5 structure nothing covers. Version 2 is version 1 in a sealed file (see hdf5.py): whatever
reads HDF5 finds what it found before, and every byte is covered.
"""

import hashlib
import os
from collections.abc import Callable, Iterable, Mapping
from typing import Any

import h5py
import numpy as np
from numpy.typing import NDArray

from resnet_ref.errors import WeightsError
from resnet_ref.weights.description import Description
from resnet_ref.weights.differences import differences, listed
from resnet_ref.weights.finite import not_finite
from resnet_ref.weights.hdf5 import (
    creating,
    incomplete,
    is_sealed,
    opened,
    plain_datasets,
    read_format,
    read_text,
    write_array,
    write_text,
)

FORMAT = "resnet-ref weights"
VERSION = 2
_CONTENT = 1  # what the attribute `version` says
_ADVICE = "take it from its source again, or make it with `resnet-ref convert`"

Array = NDArray[Any]


def write(
    path: str | os.PathLike[str],
    names: Iterable[str],
    read: Callable[[str], Array],
    description: Description,
    version: int = VERSION,
) -> None:
    """Write read(name) for each name, one at a time, as float32; all or nothing (see `atomic`). version: of the file.

    WeightsError for a name that is no path of scopes, an empty array or one without axes, and for numbers that are
    NaN, infinite or beyond float32.
    """
    digest = _Digest(description)
    with creating(path, sealed=version > 1) as file:
        for name in sorted(names):
            array = _as_float32(f"{path}: {name}", name, read(name))
            digest.add(name, array)
            write_array(file, name, array, chunks=array.shape, fletcher32=True)
        texts = {"format": FORMAT, "version": str(_CONTENT), **description.to_attributes()}
        for name, text in {**texts, "sha256": digest.hexdigest()}.items():
            write_text(file, name, text)


def load(
    path: str | os.PathLike[str], shapes_of: Callable[[Mapping[str, Any]], Mapping[str, tuple[int, ...]]]
) -> tuple[dict[str, Array], Description]:
    """The arrays and what the file says of them, once everything about it has been checked.

    shapes_of: from the network's call, as the file describes it, to the name and shape of every variable; nothing is
    allocated before the file's own shapes agree with these. WeightsError names what is missing, unexpected, of another
    shape or dtype, not finite, damaged, or written by a newer version.
    """
    with opened(path, WeightsError, _ADVICE) as file:
        description = _describe(path, file)
        expected = shapes_of(description.network)
        datasets = dict(plain_datasets(path, file, WeightsError))
        _compare(path, datasets, expected)
        digest = None if is_sealed(file) else _Digest(description)  # all bytes have been hashed once
        arrays = {name: _read(path, name, datasets[name], digest) for name in sorted(expected)}
        said = read_text(file, "sha256")
    if digest is not None and digest.hexdigest() != said:
        raise WeightsError(f"{path} is damaged: its SHA-256 is {digest.hexdigest()}, it says {said[:100]!r}; {_ADVICE}")
    return {name: arrays[name] for name in expected}, description


def _read(path: str | os.PathLike[str], name: str, dataset: h5py.Dataset, digest: "_Digest | None") -> Array:
    array = np.empty(dataset.shape, np.float32)
    try:
        dataset.read_direct(array)
    except (OSError, RuntimeError) as error:
        raise WeightsError(f"{path}: {name} is damaged ({error}); {_ADVICE}") from None
    if digest is not None:
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


def _describe(path: str | os.PathLike[str], file: h5py.File) -> Description:
    read_format(file, path, FORMAT, _CONTENT, WeightsError, _ADVICE)
    return Description.from_attributes({name: read_text(file, name) for name in Description.__dataclass_fields__})


def _compare(
    path: str | os.PathLike[str], datasets: Mapping[str, h5py.Dataset], expected: Mapping[str, tuple[int, ...]]
) -> None:
    problems = differences({name: dataset.shape or () for name, dataset in datasets.items()}, expected)
    for name, dataset in datasets.items():
        if dataset.shape != expected.get(name):
            continue  # said already
        if dataset.dtype != np.dtype("<f4"):
            problems.append(f"{name} is {dataset.dtype}, expected little-endian float32")
        elif not dataset.id.get_type().equal(h5py.h5t.IEEE_F32LE):  # such as bfloat16, which h5py calls float32
            problems.append(f"{name} is another float of {dataset.id.get_type().get_size()} bytes, expected float32")
        elif problem := incomplete(dataset, dataset.shape):
            problems.append(f"{name} {problem}")
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
    if bad := not_finite(array):
        raise WeightsError(
            f"{where} holds {bad}; expected finite float32 numbers. "
            "A diverged training gives these: take an earlier checkpoint"
        )
