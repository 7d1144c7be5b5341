"""V2 checkpoints, "tensor bundles": an index (a table) and files of raw data (tensorflow/core/util/tensor_bundle)."""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Sequence
from typing import Any, NamedTuple

import numpy as np
import numpy.typing as npt

from resnet_ref.errors import CheckpointError
from resnet_ref.weights.checkpoint.dtypes import DType, dtype_of, to_array
from resnet_ref.weights.checkpoint.slices import Shape, Slice, assemble, parse_shape, parse_slice, slice_key
from resnet_ref.weights.checkpoint.source import AGAIN, Source, masked_crc32c
from resnet_ref.weights.checkpoint.table import MOST_ENTRIES, Table
from resnet_ref.weights.checkpoint.variable import Variable
from resnet_ref.weights.checkpoint.wire import DamagedError, Message, decoding, signed, text, varint

_KNOWN_VERSION = 1
_MOST_TEXT_BYTES = 1 << 24  # the object graph of Keras' largest ResNet takes a tenth
_STRING = "string"


class _Entry(NamedTuple):
    """Where one tensor, or one slice of one, lies: BundleEntryProto. `pieces` is empty unless it is partitioned."""

    dtype: DType
    shape: Shape
    shard: int
    offset: int
    size: int
    checksum: int
    pieces: tuple[Slice, ...]


class Bundle:
    """The tensors of a V2 checkpoint; `variables` has those that a user saved, by key.

    The constructor reads the index alone and checks every entry against the sizes of the data files.
    All methods raise CheckpointError.
    """

    def __init__(self, index: Source, data: Sequence[Source]) -> None:
        self._index = index
        self._data = data
        self._size = sum(source.size for source in data)
        self._entries: dict[str, _Entry] = {}
        self._slices: dict[bytes, _Entry] = {}
        pieces = 0
        for key, value in Table(index).items():
            if key == b"":
                continue
            what = f"{index.name}: the entry {key.decode(errors='backslashreplace')!r}"
            with decoding(what):
                entry = _parse_entry(Message(value))
                pieces += len(entry.pieces)
                if pieces > MOST_ENTRIES:
                    raise DamagedError(f"more than {MOST_ENTRIES} slices by now, many times what a ResNet has")
                self._check(entry)
                if key[0] == 0:
                    self._slices[key] = entry
                else:
                    self._entries[text(key)] = entry
        self._check_total()
        self.variables = {name: Variable.of(entry.dtype, entry.shape) for name, entry in self._entries.items()}

    def read(self, name: str) -> npt.NDArray[Any]:
        """Return the tensor, after its checksum was found right."""
        entry = self._entries[name]
        if entry.dtype.array is None:
            raise CheckpointError(
                f"{self._index.name}: {name!r} holds {entry.dtype.name}, which is no array of numbers."
            )
        if not entry.pieces:
            return self._tensor(name, entry)
        with decoding(f"{self._index.name}: {name!r}"):
            parts = [self._slice(name, entry, piece) for piece in entry.pieces]
            return assemble(entry.shape, entry.dtype.array, entry.pieces, lambda i: self._tensor(name, parts[i]))

    def read_text(self, name: str) -> bytes:
        """Return the one string in the scalar string tensor `name`."""
        entry = self._entries[name]
        source = self._data[entry.shard]
        with decoding(f"{source.name}: the string {name!r}"):
            if entry.size > _MOST_TEXT_BYTES:
                raise DamagedError(f"it has {entry.size} bytes; at most {_MOST_TEXT_BYTES} were expected")
            if entry.dtype.name != _STRING or entry.shape or entry.pieces:
                raise DamagedError(f"expected one string, got {entry.dtype.name} of shape {entry.shape}")
            raw = source.read(entry.offset, entry.size, f"the string {name!r}")
            length, at = varint(memoryview(raw), 0)
            if len(raw) != at + 4 + length:
                raise DamagedError(f"a string of {length} bytes is stored in {len(raw)} bytes")
            # Checksums cover the length as an integer, not as the varint that is stored.
            width = 4 if length < 1 << 32 else 8
            if masked_crc32c(length.to_bytes(width, "little")) != int.from_bytes(raw[at : at + 4], "little"):
                raise DamagedError("the checksum of its length is wrong")
            if masked_crc32c(length.to_bytes(width, "little") + raw[at:]) != entry.checksum:
                raise DamagedError("its checksum is wrong")
            return raw[at + 4 :]

    def _tensor(self, name: str, entry: _Entry) -> npt.NDArray[Any]:
        source = self._data[entry.shard]
        what = f"variable {name!r}"
        source.require(entry.checksum, entry.offset, entry.size, what)
        stored = np.empty(entry.shape, entry.dtype.stored)  # as large as the bytes in the file: see _check
        raw = stored.reshape(-1).view(np.uint8)
        source.read_into(raw, entry.offset, what)
        got = masked_crc32c(raw)
        if got != entry.checksum:
            raise CheckpointError(
                f"{source.name}: variable {name!r} has checksum {got:08x}, its index {self._index.name} expects "
                f"{entry.checksum:08x}. {AGAIN}"
            )
        with decoding(f"{source.name}: {what}"):
            return to_array(stored, entry.dtype)

    def _slice(self, name: str, whole: _Entry, piece: Slice) -> _Entry:
        entry = self._slices.get(slice_key(name, piece))
        if entry is None:
            raise DamagedError(f"its slice from {piece.starts} is missing")
        if entry.shape != piece.shape(whole.shape) or entry.dtype != whole.dtype or entry.pieces:
            raise DamagedError(f"its slice from {piece.starts} is {entry.dtype.name} of shape {entry.shape}")
        return entry

    def _check(self, entry: _Entry) -> None:
        if entry.pieces:
            if math.prod(entry.shape) > self._size:
                raise DamagedError(f"its shape {entry.shape} has more elements than the data files have bytes")
            return
        if entry.shard >= len(self._data):
            raise DamagedError(f"it lies in data file {entry.shard}, but there are only {len(self._data)}")
        source = self._data[entry.shard]
        if entry.dtype.stored is not None:
            expected = math.prod(entry.shape) * entry.dtype.stored.itemsize
            if entry.size != expected:
                raise DamagedError(f"{entry.dtype.name} of shape {entry.shape} is {expected} bytes, not {entry.size}")
        if entry.offset < 0 or entry.size < 0 or entry.offset + entry.size > source.size:
            raise DamagedError(
                f"it has {entry.size} bytes from byte {entry.offset} of {source.name} on, "
                f"but that file has only {source.size} bytes"
            )

    def _check_total(self) -> None:
        """Raise CheckpointError if tensors share bytes: a small file would claim any amount of them."""
        claimed = Counter[int]()
        for entry in (*self._entries.values(), *self._slices.values()):
            if not entry.pieces:
                claimed[entry.shard] += entry.size
        for number, total in claimed.items():
            source = self._data[number]
            if total > source.size:
                raise CheckpointError(
                    f"{self._index.name}: its variables claim {total} bytes of {source.name}, "
                    f"which has only {source.size}. {AGAIN}"
                )


def shard_count(index: Source) -> int:
    """Return the number of data files that a V2 index speaks of, from its header (BundleHeaderProto).

    Raises CheckpointError, also for a big-endian bundle and for one of a later version.
    """
    header = Table(index).get(b"")
    with decoding(f"{index.name}: its header"):
        if header is None:
            raise DamagedError("there is none")
        fields = Message(header)
        if fields.integer(2):
            raise CheckpointError(
                f"{index.name}: its numbers are big-endian; only little-endian bundles are read. "
                "Save it again on a little-endian machine."
            )
        needed = fields.message(3).integer(2)
        if needed > _KNOWN_VERSION:
            raise CheckpointError(
                f"{index.name}: it needs readers of version {needed}, this one has version {_KNOWN_VERSION}. "
                "Save it with an earlier TensorFlow."
            )
        count = signed(fields.integer(1))
        if count < 1:
            raise DamagedError(f"it claims {count} data files")
        return count


def _parse_entry(fields: Message) -> _Entry:
    shape = parse_shape(fields.message(2))
    return _Entry(
        dtype=dtype_of(fields.integer(1)),
        shape=shape,
        shard=fields.integer(3),
        offset=signed(fields.integer(4)),
        size=signed(fields.integer(5)),
        checksum=fields.integer(6),
        pieces=tuple(parse_slice(piece, shape) for piece in fields.messages(7)),
    )
