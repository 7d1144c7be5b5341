"""Creates HDF5 files whole or not at all, and reads text from them without trusting it."""

import io
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import h5py
import numpy as np

from resnet_ref.errors import ResnetRefError, WeightsError
from resnet_ref.weights import seal
from resnet_ref.weights.atomic import replacing
from resnet_ref.weights.interruption import uninterrupted
from resnet_ref.weights.plain_file import Identity, Path, identity, open_plain

# Since HDF5 1.10 attributes may be longer than 64 KiB.
_LIBRARY = ("v110", "v110")
_MAGIC = b"\x89HDF\r\n\x1a\n"
_DEEPEST = 16
_MOST_ITEMS = 1 << 16  # a network of 2,000 units has fewer
_LONGEST_TEXT = 2 << 20  # JSON takes up to 30 times its length, once read


@contextmanager
def creating(path: Path, sealed: bool = False) -> Iterator[h5py.File]:
    """A new HDF5 file that takes the name `path` when the block ends without an error (see `atomic.replacing`).

    What writes to it does so `uninterrupted`: each write may come back to Python.
    """
    with replacing(path) as part, _Patient(part, "r+b") as raw:
        with uninterrupted():
            file = h5py.File(raw, "w", libver=_LIBRARY, userblock_size=seal.BYTES if sealed else None)
        try:
            yield file
        finally:
            with uninterrupted():
                file.close()
        if sealed and raw.error is None:
            made = seal.seal(raw)
            raw.seek(0)
            raw.write(made)
        if raw.error is not None:
            raise raw.error


@contextmanager
def opened(path: Path, error: type[ResnetRefError], advice: str) -> Iterator[h5py.File]:
    """An HDF5 file for reading; `error`, which names the file and gives `advice`, where it is none.

    What HDF5 itself raises over damage, inside the block too, becomes that error. A seal is not looked at.
    """
    try:
        with open_plain(path, error, advice) as raw:
            require_hdf5(path, raw, error, advice)
        with open_unlocked(path) as file:
            before = identity_of(file)
            yield file
            changed = before != identity_of(file)
    except ResnetRefError:
        raise
    except (AttributeError, KeyError, OSError, RuntimeError, TypeError, ValueError) as problem:  # words for damage
        raise error(f"{path} is damaged: HDF5 cannot read it ({problem}); {advice}") from None
    if changed:
        raise error(f"{path} was changed while it was read; try again when nobody writes it")


def open_unlocked(path: Path) -> h5py.File:
    """An HDF5 file, opened for reading where another still locks it, as who writes it does until after it has its name.

    Whoever changes it while it is read is seen by its `identity_of`.
    """
    return h5py.File(path, "r", locking=False)


def identity_of(file: h5py.File) -> Identity:
    """Which file that is, and in which state."""
    return identity(file.id.get_vfd_handle())


def is_hdf5(path: Path) -> bool:
    """Whether that is a file which begins as HDF5 does, or a seal."""
    try:
        with open_plain(path, ResnetRefError, "") as raw:
            require_hdf5(path, raw, ResnetRefError, "")
    except ResnetRefError:
        return False
    return True


def require_hdf5(path: Path, raw: io.FileIO, error: type[ResnetRefError], advice: str) -> bool:
    """Whether the file has a seal; `error` where it does not begin as HDF5 does either."""
    raw.seek(0)
    start = raw.read(len(seal.SEALED))
    if start.startswith(_MAGIC) or start == seal.SEALED:
        return start == seal.SEALED
    if not start:
        raise error(f"{path} is no HDF5 file: it is empty; {advice}")
    found, wanted = start[: len(_MAGIC)].hex(" "), _MAGIC.hex(" ")
    raise error(f"{path} is no HDF5 file: it begins with {found}, expected {wanted}; {advice}")


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
    path: Path, group: h5py.Group, error: type[ResnetRefError], prefix: str = "", seen: set[Any] | None = None
) -> Iterator[tuple[str, h5py.Dataset]]:
    """Every dataset below the group by its path; only plain groups and datasets in this file are let through.

    Each has one name: groups that hold each other several times over would have more than can be counted.
    """
    seen = {_address(group)} if seen is None else seen
    for key in group:
        name = f"{prefix}{key}"
        if not isinstance(group.get(key, getlink=True), h5py.HardLink):
            raise error(f"{path}: {name} is a link to something else; such a file holds its data itself")
        item = group[key]
        if (address := _address(item)) in seen or len(seen) > _MOST_ITEMS:
            why = (
                "has another name too"
                if address in seen
                else f"is one of more than {_MOST_ITEMS:,} groups and datasets"
            )
            raise error(f"{path}: {name} {why}; such a file is neither so large nor knotted")
        seen.add(address)
        if isinstance(item, h5py.Dataset) and not item.is_virtual and not item.external:
            yield name, item
        elif isinstance(item, h5py.Group) and name.count("/") < _DEEPEST:
            yield from plain_datasets(path, item, error, f"{name}/", seen)
        else:
            raise error(f"{path}: {name} is neither a plain group nor a plain dataset")


def _address(item: Any) -> Any:
    return h5py.h5o.get_info(item.id).addr


def incomplete(dataset: h5py.Dataset, chunks: tuple[int, ...] | None) -> str | None:
    """What is wrong where a dataset's bytes do not lie in the file as they are, in `chunks` or in one piece."""
    made = dataset.id.get_create_plist()
    filters = {made.get_filter(number)[0] for number in range(made.get_nfilters())}
    if filters - {h5py.h5z.FILTER_FLETCHER32} or dataset.chunks not in (None, chunks):
        return "is compressed or in several chunks, expected its bytes as they are"
    if dataset.id.get_storage_size() < dataset.nbytes:  # so that a small file cannot claim a large memory
        return f"is incomplete, expected {dataset.nbytes} bytes"
    return None


def write_text(file: h5py.File, name: str, text: str) -> None:
    """A root attribute of fixed length: HDF5 can loop for ever over damaged text of variable length."""
    data = text.encode()
    if len(data) > _LONGEST_TEXT:
        raise WeightsError(f"{name} takes {len(data):,} bytes as text, more than {_LONGEST_TEXT:,}; shorten it")
    with uninterrupted():
        file.attrs[name] = np.bytes_(data)


def write_array(file: h5py.File, name: str, array: Any, **how: Any) -> None:
    """A dataset of a NumPy array; how: as in h5py's create_dataset."""
    with uninterrupted():
        file.create_dataset(name, data=array, **how)


def read_text(file: h5py.File, name: str) -> str:
    """The inverse of write_text. KeyError, ValueError or another of HDF5's errors where it is no such attribute."""
    attribute = h5py.h5a.open(file.id, name.encode())
    kind = attribute.get_type()
    if attribute.shape != () or not isinstance(kind, h5py.h5t.TypeStringID) or kind.is_variable_str():
        raise ValueError(f"attribute {name!r} is no text of fixed length")
    if kind.get_size() > _LONGEST_TEXT:
        raise ValueError(f"attribute {name!r} has {kind.get_size():,} bytes, more than {_LONGEST_TEXT:,}")
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
