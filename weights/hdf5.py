"""Creates HDF5 files whole or not at all, and reads text from them without trusting it."""

import io
import os
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import h5py
import numpy as np

from resnet_ref.weights.atomic import replacing

# Since HDF5 1.10 attributes may be longer than 64 KiB.
_LIBRARY = ("v110", "v110")


@contextmanager
def creating(path: str | os.PathLike[str]) -> Iterator[h5py.File]:
    """A new HDF5 file that takes the name `path` when the block ends without an error (see `atomic.replacing`)."""
    with replacing(path) as part, _Patient(part, "r+b") as raw:
        with h5py.File(raw, "w", libver=_LIBRARY) as file:
            yield file
        if raw.error is not None:
            raise raw.error


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
