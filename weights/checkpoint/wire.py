"""Protocol buffers' wire format (protobuf.dev/programming-guides/encoding): just enough to walk a message safely."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

import numpy as np
import numpy.typing as npt

from resnet_ref.errors import CheckpointError
from resnet_ref.weights.checkpoint.source import AGAIN

_LONGEST_VARINT = 10
# A field of two bytes takes two hundred in memory. The lists here have a field or two per variable.
_MOST_FIELDS = 1 << 17


class DamagedError(Exception):
    """Bytes that break the format. Internal: `decoding` turns it into a CheckpointError that names the place."""


@contextmanager
def decoding(where: str) -> Iterator[None]:
    """Turn a DamagedError raised inside into a CheckpointError that begins with `where`."""
    try:
        yield
    except DamagedError as error:
        raise CheckpointError(f"{where}: {error}. {AGAIN}") from error


def varint(data: memoryview, at: int) -> tuple[int, int]:
    """Return (the unsigned 64-bit varint at `at`, the position after it). Raises DamagedError."""
    value = 0
    for place, byte in enumerate(data[at : at + _LONGEST_VARINT]):
        value |= (byte & 127) << 7 * place
        if byte < 128:
            if value >> 64:
                raise DamagedError("a varint exceeds 64 bits")
            return value, at + place + 1
    raise DamagedError("a varint does not end where it should")


def signed(value: int) -> int:
    """Return the two's complement meaning of an unsigned 64-bit `value`."""
    return value - (1 << 64) if value >> 63 else value


def packed_varints(data: memoryview, count: int) -> npt.NDArray[np.int64]:
    """Return the `count` varints that fill `data`, as int64 [count]. Raises DamagedError."""
    raw = np.frombuffer(data, np.uint8)
    last = np.flatnonzero(raw < 128)
    if last.size != count or (last[-1] + 1 if count else 0) != raw.size:
        raise DamagedError(f"expected {count} varints, got {last.size} in {raw.size} bytes")
    first = np.concatenate([[0], last[:-1] + 1]) if count else last
    values = np.zeros(count, np.uint64)
    for place in range(int((last - first).max(initial=-1)) + 1):
        if place == _LONGEST_VARINT:
            raise DamagedError("a varint exceeds 64 bits")
        byte = first + place
        longer = byte <= last
        values[longer] |= (raw[byte[longer]].astype(np.uint64) & np.uint64(127)) << np.uint64(7 * place)
    return values.view(np.int64)


class Message:
    """A parsed message: its fields by number, with unknown ones kept and ignored.

    Length-delimited values stay views into `data`, so a large one costs nothing. Every method raises DamagedError
    when a field has another wire type than the one asked for.
    """

    def __init__(self, data: memoryview) -> None:
        self._fields: dict[int, list[int | memoryview]] = {}
        at = count = 0
        while at < len(data):
            if count == _MOST_FIELDS:
                raise DamagedError(f"a message of more than {_MOST_FIELDS} fields")
            tag, at = varint(data, at)
            value, at = _value(data, at, tag & 7)
            self._fields.setdefault(tag >> 3, []).append(value)
            count += 1

    def has(self, number: int) -> bool:
        """Tell whether the field is present."""
        return number in self._fields

    def integer(self, number: int) -> int:
        """Return the field as an unsigned integer, 0 if it is absent."""
        value = self._fields[number][-1] if number in self._fields else 0
        if not isinstance(value, int):
            raise DamagedError(f"field {number} is not an integer")
        return value

    def blobs(self, number: int) -> list[memoryview]:
        """Return every occurrence of a length-delimited field."""
        values = self._fields.get(number, [])
        views = [value for value in values if isinstance(value, memoryview)]
        if len(views) != len(values):
            raise DamagedError(f"field {number} is an integer where bytes were expected")
        return views

    def blob(self, number: int) -> memoryview:
        """Return a length-delimited field, empty if it is absent."""
        views = self.blobs(number)
        return views[-1] if views else memoryview(b"")

    def text(self, number: int) -> str:
        """Return a string field."""
        return text(self.blob(number))

    def message(self, number: int) -> Message:
        """Return an embedded message, empty if it is absent."""
        return Message(self.blob(number))

    def messages(self, number: int) -> Iterator[Message]:
        """Yield every occurrence of an embedded message, one at a time."""
        return map(Message, self.blobs(number))


def text(data: memoryview | bytes) -> str:
    """Decode UTF-8. Raises DamagedError."""
    try:
        return bytes(data).decode()
    except UnicodeDecodeError:
        raise DamagedError("a name is not UTF-8 text") from None


def _value(data: memoryview, at: int, wire_type: int) -> tuple[int | memoryview, int]:
    if wire_type == 0:
        return varint(data, at)
    if wire_type == 2:
        size, at = varint(data, at)
    elif wire_type in (1, 5):
        size = 8 if wire_type == 1 else 4
    else:
        raise DamagedError(f"wire type {wire_type} is unknown")
    if at + size > len(data):
        raise DamagedError(f"a field of {size} bytes runs past the end of its message")
    piece = data[at : at + size]
    return (piece if wire_type == 2 else int.from_bytes(piece, "little")), at + size
