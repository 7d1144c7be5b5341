"""What HDF5 says about a Keras file: everything that libhdf5 is asked for, in one call that can run in a child process.

libhdf5 is C, and these bytes may come from anybody. Only places, shapes and names are taken from it: the numbers lie in
such a file as they are, and whoever calls this reads them without HDF5.
"""

import io
import os
import struct
import zipfile
import zlib
from collections.abc import Iterator
from contextlib import contextmanager
from itertools import islice
from pathlib import Path
from typing import Any, NamedTuple

import h5py

from resnet_ref.errors import CheckpointError
from resnet_ref.weights.contents import FORMAT
from resnet_ref.weights.elsewhere.keras_names import container
from resnet_ref.weights.hdf5 import incomplete, opened, plain_datasets

ADVICE = "take it from its source again, or save it with Keras again"
MEMBER = "model.weights.h5"
_MOST_ARRAYS = 20_000
_LONGEST_CONFIG = 1 << 22  # a ResNet152's has half a million
_ZIP = b"PK\3\4"
_FLOATS = [
    (getattr(h5py.h5t, f"IEEE_F{bits}{order}"), f"{sign}f{bits // 8}")
    for bits in (16, 32, 64)
    for order, sign in (("LE", "<"), ("BE", ">"))
]


class Stored(NamedTuple):
    """Where an array lies: NumPy's type of its bytes ("bfloat16", or in angle brackets what is none of ours), its
    shape, and the place of its first byte in the file."""

    dtype: str
    shape: tuple[int, ...]
    offset: int
    nbytes: int


class Contents(NamedTuple):
    """arrays: by path. layers: the keys of the groups that stand for layers, with weights or without. titles: by such
    a key, the name that Keras 3 notes. config: the model's, as JSON. keras_version: where the file says so."""

    arrays: dict[str, Stored]
    layers: list[str]
    titles: dict[str, str]
    config: str | None
    keras_version: str | None


def contents(path: str) -> Contents:
    """The contents of a legacy .h5, a .weights.h5 or a .keras. CheckpointError."""
    if _is_zip(path):
        with _unzipped(path) as (file, start, size, config):
            return _listed(path, file, start, size)._replace(config=config)
    with opened(path, CheckpointError, ADVICE) as file:
        _require_not_ours(path, _text(file, "format") or "")
        return _listed(path, file, 0, os.path.getsize(path))


def _require_not_ours(path: str, format: str) -> None:
    """CheckpointError for what this package wrote: HDF5 too, with an attribute that says so."""
    if format == FORMAT:
        raise CheckpointError(f"{path} is a weights file of resnet-ref already; it can be used, or exported, as it is")
    if format.startswith(FORMAT.split()[0]):
        raise CheckpointError(f"{path} is no weights file but a {format[:100]!r}; name the weights instead")


def _is_zip(path: str) -> bool:
    try:
        with open(path, "rb") as raw:
            return raw.read(len(_ZIP)) == _ZIP
    except OSError:  # `opened` says why
        return False


def _listed(path: str, file: h5py.File, start: int, size: int) -> Contents:
    datasets = dict(islice(plain_datasets(path, file, CheckpointError), _MOST_ARRAYS + 1))
    if len(datasets) > _MOST_ARRAYS:
        raise CheckpointError(f"{path} holds more than {_MOST_ARRAYS} arrays, a ResNet152 with its optimizer 3000")
    arrays = {name: _stored(path, name, dataset, start, size) for name, dataset in datasets.items()}
    top = container([*arrays, *islice(file, 100)])
    titles = {}
    if top is None:
        group = file.get("model_weights", file)
    else:
        group = file[top]
        for key in islice(group, _MOST_ARRAYS):
            name = _text(group[f"{key}/vars"], "name") if f"{key}/vars" in group else None
            if name is not None:
                titles[key] = name
    layers = list(islice(group, _MOST_ARRAYS))
    return Contents(arrays, layers, titles, _text(file, "model_config"), _text(group, "keras_version"))


def _stored(path: str, name: str, dataset: h5py.Dataset, start: int, size: int) -> Stored:
    where = f"{path}: {name}"
    kind = dataset.id.get_type()
    dtype = next((dtype for standard, dtype in _FLOATS if kind == standard), f"<{str(dataset.dtype)[:40]}>")
    if isinstance(kind, h5py.h5t.TypeOpaqueID) and kind.get_size() == 2 and _text(dataset, "dtype") == "bfloat16":
        dtype = "bfloat16"
    if dataset.shape is None:
        raise CheckpointError(f"{where} is no array: it is HDF5's empty value; {ADVICE}")
    if problem := incomplete(dataset, None):
        raise CheckpointError(f"{where} {problem}; {ADVICE}")
    nbytes, offset = int(dataset.nbytes), dataset.id.get_offset()
    if nbytes and (offset is None or offset + nbytes > size):
        raise CheckpointError(f"{where} does not lie in the file as Keras writes it, or not all of it; {ADVICE}")
    return Stored(dtype, tuple(int(n) for n in dataset.shape), start + (offset or 0), nbytes)


def _text(item: Any, name: str) -> str | None:
    """A text attribute of bounded length; None where there is none."""
    if name not in item.attrs:
        return None
    value = item.attrs[name]
    if isinstance(value, bytes):
        value = value.decode("utf-8", "replace")
    return value if isinstance(value, str) and len(value) <= _LONGEST_CONFIG else None


@contextmanager
def _unzipped(path: str) -> Iterator[tuple[h5py.File, int, int, str]]:
    """The HDF5 file in a .keras, where it starts and how long it is, and the model's config."""
    try:
        with open(path, "rb") as raw, zipfile.ZipFile(raw) as archive:
            member, config = _member(path, archive, MEMBER), _member(path, archive, "config.json")
            start = _start(path, raw, member)
            with archive.open(config) as stream:
                text = stream.read(_LONGEST_CONFIG + 1)
            if len(text) > _LONGEST_CONFIG:
                raise CheckpointError(f"{path}: config.json is longer than {_LONGEST_CONFIG} bytes; {ADVICE}")
            window = _Window(raw, start, member.file_size)
            _verify(path, window, member.CRC)
            with h5py.File(window, "r") as file:
                yield file, start, member.file_size, text.decode()
    except CheckpointError:
        raise
    except (zipfile.BadZipFile, zlib.error, NotImplementedError, AttributeError, KeyError, OSError, RuntimeError,
            TypeError, ValueError) as problem:  # fmt: skip
        raise CheckpointError(f"{path} is damaged: it is a zip, but no .keras file ({problem}); {ADVICE}") from None


def _member(path: str, archive: zipfile.ZipFile, name: str) -> zipfile.ZipInfo:
    found = [info for info in archive.infolist() if info.filename == name]
    if len(found) != 1:
        shown = ", ".join(info.filename[:40] for info in archive.infolist()[:3])
        raise CheckpointError(
            f"{path} is a zip, but no .keras file of Keras: it holds {len(found)} times {name}, expected once; "
            f"it begins with {shown or 'nothing'}"
        )
    return found[0]


def _start(path: str, raw: io.BufferedReader, member: zipfile.ZipInfo) -> int:
    """Where a member's bytes begin, which lie in the zip as they are."""
    if member.compress_type != zipfile.ZIP_STORED or member.flag_bits & 1 or member.file_size != member.compress_size:
        raise CheckpointError(f"{path}: {MEMBER} is compressed or encrypted, Keras stores it as it is; {ADVICE}")
    raw.seek(member.header_offset)
    header = raw.read(30)
    if len(header) != 30 or header[:4] != _ZIP:
        raise CheckpointError(f"{path} is damaged: there is no {MEMBER} where its directory says; {ADVICE}")
    start = member.header_offset + 30 + sum(struct.unpack("<HH", header[26:]))
    if start + member.file_size > Path(path).stat().st_size:
        raise CheckpointError(f"{path} is damaged: {MEMBER} is longer than the file; {ADVICE}")
    return start


def _verify(path: str, window: "_Window", expected: int) -> None:
    crc, piece = 0, bytearray(1 << 20)
    while count := window.readinto(piece):
        crc = zlib.crc32(memoryview(piece)[:count], crc)
    if crc != expected:
        raise CheckpointError(f"{path} is damaged: {MEMBER} has CRC-32 {crc:08x}, expected {expected:08x}; {ADVICE}")
    window.seek(0)


class _Window(io.RawIOBase):
    """A part of a file, as a file."""

    def __init__(self, raw: io.BufferedReader, start: int, size: int) -> None:
        self._raw, self._start, self._size, self._at = raw, start, size, 0

    def readable(self) -> bool:
        return True

    def seekable(self) -> bool:
        return True

    def seek(self, offset: int, whence: int = io.SEEK_SET) -> int:
        base = {io.SEEK_SET: 0, io.SEEK_CUR: self._at, io.SEEK_END: self._size}[whence]
        self._at = max(0, base + offset)
        return self._at

    def tell(self) -> int:
        return self._at

    def readinto(self, buffer: Any) -> int:
        view = memoryview(buffer).cast("B")
        count = max(0, min(len(view), self._size - self._at))
        self._raw.seek(self._start + self._at)
        done = self._raw.readinto(view[:count])
        self._at += done
        return done
