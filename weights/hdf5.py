"""Creates HDF5 files whole or not at all, and reads text from them without trusting it."""

import io
import os
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import h5py
import numpy as np

from resnet_ref.errors import ResnetRefError
from resnet_ref.weights.atomic import replacing

# Since HDF5 1.10 attributes may be longer than 64 KiB.
_LIBRARY = ("v110", "v110")
_MAGIC = b"\x89HDF\r\n\x1a\n"
_DEEPEST = 16

Path = str | os.PathLike[str]


@contextmanager
def creating(path: Path) -> Iterator[h5py.File]:
    """A new HDF5 file that takes the name `path` when the block ends without an error (see `atomic.replacing`)."""
    with replacing(path) as part, _Patient(part, "r+b") as raw:
        with h5py.File(raw, "w", libver=_LIBRARY) as file:
            yield file
        if raw.error is not None:
            raise raw.error


@contextmanager
def opened(path: Path, error: type[ResnetRefError], advice: str) -> Iterator[h5py.File]:
    """An HDF5 file for reading; `error`, which names the file and gives `advice`, where it is none.

    What HDF5 itself raises over damage, inside the block too, becomes that error.
    """
    try:
        with open(path, "rb") as raw:
            magic = raw.read(len(_MAGIC))
    except IsADirectoryError:
        raise error(f"{path} is a directory; {advice}") from None
    except (OSError, ValueError) as problem:
        raise error(f"cannot read {path}: {getattr(problem, 'strerror', None) or problem}") from None
    if magic != _MAGIC:
        raise error(f"{path} is no HDF5 file: it begins with {magic.hex(' ')}, expected {_MAGIC.hex(' ')}; {advice}")
    try:
        with h5py.File(path, "r") as file:
            yield file
    except ResnetRefError:
        raise
    except (AttributeError, KeyError, OSError, RuntimeError, TypeError, ValueError) as problem:  # words for damage
        raise error(f"{path} is damaged: HDF5 cannot read it ({problem}); {advice}") from None


def read_format(
    file: h5py.File, path: Path, wanted: str, version: int, error: type[ResnetRefError], advice: str
) -> None:
    """`error` unless the root attributes `format` and `version` are these."""
    try:
        found = read_text(file, "format")
        shown = repr(found[:100])
    except (KeyError, ValueError) as problem:
        found, shown = "", str(problem)
    if found != wanted:
        raise error(f"{path} is HDF5, but its 'format' should be {wanted!r}, and it is: {shown}; {advice}")
    if (said := read_text(file, "version")) != str(version):
        raise error(f"{path} has format version {said[:20]!r}, this resnet-ref reads {version}; use a newer resnet-ref")


def plain_datasets(
    path: Path, group: h5py.Group, error: type[ResnetRefError], prefix: str = ""
) -> Iterator[tuple[str, h5py.Dataset]]:
    """Every dataset below the group by its path; only plain groups and datasets in this file are let through."""
    for key in group:
        name = f"{prefix}{key}"
        if not isinstance(group.get(key, getlink=True), h5py.HardLink):
            raise error(f"{path}: {name} is a link to something else; such a file holds its data itself")
        item = group[key]
        if isinstance(item, h5py.Dataset) and not item.is_virtual and not item.external:
            yield name, item
        elif isinstance(item, h5py.Group) and name.count("/") < _DEEPEST:
            yield from plain_datasets(path, item, error, f"{name}/")
        else:
            raise error(f"{path}: {name} is neither a plain group nor a plain dataset")


def incomplete(dataset: h5py.Dataset, chunks: tuple[int, ...] | None) -> str | None:
    """What is wrong where a dataset's bytes do not lie in the file as they are, in `chunks` or in one piece."""
    if dataset.compression is not None or dataset.chunks not in (None, chunks):
        return "is compressed or in several chunks, expected its bytes as they are"
    if dataset.id.get_storage_size() < dataset.nbytes:  # so that a small file cannot claim a large memory
        return f"is incomplete, expected {dataset.nbytes} bytes"
    return None


def write_text(file: h5py.File, name: str, text: str) -> None:
    """A root attribute of fixed length: HDF5 can loop for ever over damaged text of variable length."""
    file.attrs[name] = np.bytes_(text.encode())


def read_text(file: h5py.File, name: str) -> str:
    """The inverse of write_text. KeyError, ValueError or another of HDF5's errors where it is no such attribute."""
    attribute = h5py.h5a.open(file.id, name.encode())
    kind = attribute.get_type()
    if attribute.shape != () or not isinstance(kind, h5py.h5t.TypeStringID) or kind.is_variable_str():
        raise ValueError(f"attribute {name!r} is no text of fixed length")
    value: Any = file.attrs[name]
    return bytes(value).decode()


class _Patient(io.FileIO):
    """A file that keeps its first error for later, because HDF5 does not survive one while it closes."""

    error: OSError | None = None

    def write(self, data: Any) -> int:
        view = memoryview(data).cast("B")
        done = 0
        while self.error is None and done < len(view):
            try:
                done += super().write(view[done:]) or 0
            except OSError as error:
                self.error = error
        return len(view)

    def truncate(self, size: int | None = None) -> int:
        if self.error is None:
            try:
                return super().truncate(size)
            except OSError as error:
                self.error = error
        return size or 0
