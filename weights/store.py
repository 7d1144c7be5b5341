"""The weights file: HDF5, one float32 dataset per variable at slim's name, and root attributes that describe them.

Each dataset is one chunk with a Fletcher-32 checksum. A SHA-256 covers what Fletcher-32 does not: the names, the shapes
and the attributes, and the data once more. It is the same for equal content.

That is version 1, whose HDF5 structure nothing covers. Version 2 is version 1 in a sealed file (see seal.py): whatever
reads HDF5 finds what it found before, and every byte is covered.
"""

import hashlib
import io
import os
from collections.abc import Callable, Iterable, Mapping
from typing import Any

import numpy as np
from numpy.typing import NDArray

from resnet_ref.errors import WeightsError
from resnet_ref.weights import seal
from resnet_ref.weights.contents import ADVICE, CONTENT_VERSION, FORMAT, Contents, Stored, contents, require_short
from resnet_ref.weights.description import Description
from resnet_ref.weights.differences import differences, listed
from resnet_ref.weights.finite import DIVERGED, not_finite
from resnet_ref.weights.hdf5 import creating, require_hdf5, write_array, write_text
from resnet_ref.weights.plain_file import Path, identity, open_plain

VERSION = 2
_PIECE = 1 << 20  # bytes that are looked at together
_TIMES = 10  # that a file may be replaced while it is opened

Array = NDArray[Any]


def write(
    path: Path,
    names: Iterable[str],
    read: Callable[[str], Array],
    description: Description,
    version: int = VERSION,
    source: Path | None = None,
) -> None:
    """Write read(name) for each name, one at a time, as float32; all or nothing (see `atomic`).

    version: of the file. source: where the arrays come from, for errors; None: they name the file itself.

    WeightsError for a name that is no path of scopes, an empty array or one without axes, and for numbers that are
    NaN, infinite or beyond float32.
    """
    require_short(path, description.to_attributes())
    digest = _Digest(description)
    with creating(path, sealed=version > 1) as file:
        for name in sorted(names):
            array = _as_float32(f"{source or path}: {name}", name, read(name))
            digest.start(name, array.shape)
            digest.add(array)
            write_array(file, name, array, chunks=array.shape, fletcher32=True)
        texts = {"format": FORMAT, "version": str(CONTENT_VERSION), **description.to_attributes()}
        for name, text in {**texts, "sha256": digest.hexdigest()}.items():
            write_text(file, name, text)


def load(
    path: Path,
    shapes_of: Callable[[Mapping[str, Any]], Mapping[str, tuple[int, ...]]],
    ask: Callable[[str], Contents] = contents,
) -> tuple[dict[str, Array], Description]:
    """The arrays and what the file says of them, once everything about it has been checked.

    shapes_of: from the network's call, as the file describes it, to the name and shape of every variable; nothing is
    allocated before the file's own shapes agree with these. ask: `contents`, in whichever process. WeightsError names
    what is missing, unexpected, of another shape or dtype, not finite, damaged, or written by a newer version.
    """
    for _ in range(_TIMES):
        with open_plain(path, WeightsError, ADVICE) as raw:
            before = identity(raw.fileno())
            sealed = require_hdf5(path, raw, WeightsError, ADVICE)
            if sealed:  # before libhdf5 sees a byte
                seal.verify(path, raw, WeightsError, ADVICE)
            found = ask(os.fspath(path))
            if found.identity != before:  # another file took its name
                continue
            loaded = _load(path, raw, found, sealed, shapes_of)
            if identity(raw.fileno()) != before:
                raise WeightsError(f"{path} was changed while it was read; try again when nobody writes it")
            return loaded
    raise WeightsError(f"{path} was changed whenever it was read; try again when nobody writes it")


def _load(
    path: Path, raw: io.FileIO, found: Contents, sealed: bool, shapes_of: Callable[[Any], Mapping[str, Any]]
) -> tuple[dict[str, Array], Description]:
    try:
        description = Description.from_attributes(found.texts)
    except (ValueError, RecursionError) as problem:
        raise WeightsError(f"{path} is damaged: its description cannot be read ({problem}); {ADVICE}") from None
    expected = shapes_of(description.network)
    _compare(path, found.arrays, expected)
    digest = None if sealed else _Digest(description)  # all bytes have been hashed once
    for name in sorted(expected):  # all of them before any is kept, so that a refusal takes little memory
        _check(path, raw, name, found.arrays[name], digest)
    if digest is not None and digest.hexdigest() != (said := found.sha256):
        raise WeightsError(f"{path} is damaged: its SHA-256 is {digest.hexdigest()}, it says {said[:100]!r}; {ADVICE}")
    return {name: _read(path, raw, found.arrays[name]) for name in expected}, description


def _check(path: Path, raw: io.FileIO, name: str, stored: Stored, digest: "_Digest | None") -> None:
    """Whether all numbers are finite, and the digest of them; a piece at a time."""
    if digest is not None:
        digest.start(name, stored.shape)
    for start in range(0, stored.nbytes, _PIECE):
        piece = _numbers(path, raw, stored.offset + start, min(_PIECE, stored.nbytes - start))
        if digest is not None:
            digest.add(piece)
        _require_finite(f"{path}: {name}", piece, stored.shape, start // piece.itemsize)


def _read(path: Path, raw: io.FileIO, stored: Stored) -> Array:
    numbers = _numbers(path, raw, stored.offset, stored.nbytes)
    return numbers.reshape(stored.shape).astype(np.float32, copy=False)


def _numbers(path: Path, raw: io.FileIO, offset: int, nbytes: int) -> Array:
    """float32 numbers, little-endian, from a place in the file."""
    try:
        raw.seek(offset)
        numbers = np.fromfile(raw, "<f4", nbytes // 4)
    except OSError as error:
        raise WeightsError(f"cannot read {path}: {error.strerror}") from None
    if numbers.nbytes != nbytes:
        raise WeightsError(f"{path} was cut off while it was read; {ADVICE}")
    return numbers


class _Digest:
    """SHA-256 over the description, then name, shape and bytes of each array in order of names."""

    def __init__(self, description: Description) -> None:
        self._sha = hashlib.sha256()
        for name, text in sorted(description.to_attributes().items()):
            self._sha.update(f"{name}\0{text}\0".encode())

    def start(self, name: str, shape: tuple[int, ...]) -> None:
        """An array begins."""
        self._sha.update(f"{name}\0{list(shape)}\0".encode())

    def add(self, numbers: Array) -> None:
        """Some of its numbers, in order."""
        self._sha.update(numbers.data)

    def hexdigest(self) -> str:
        return self._sha.hexdigest()


def _compare(path: Path, arrays: Mapping[str, Stored], expected: Mapping[str, tuple[int, ...]]) -> None:
    size = os.path.getsize(path)
    problems = differences({name: stored.shape for name, stored in arrays.items()}, expected)
    for name, stored in arrays.items():
        if stored.shape != expected.get(name):
            continue  # said already
        if stored.problem:
            problems.append(f"{name} {stored.problem}")
        elif stored.offset + stored.nbytes > size:
            problems.append(f"{name} does not lie in the file")
    if sum(stored.nbytes for stored in arrays.values()) > size:
        problems.append("its data are larger than the file")
    if problems:
        raise WeightsError(f"{path} does not hold the network it describes: {listed(problems)}; {ADVICE}")


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
    _require_finite(where, array, array.shape)
    return array


def _require_finite(where: str, numbers: Array, shape: tuple[int, ...], start: int = 0) -> None:
    """numbers: those of an array of that shape, from one of them on."""
    if bad := not_finite(numbers, shape, start):
        raise WeightsError(f"{where} holds {bad}; expected finite float32 numbers. {DIVERGED}")
