"""Writes a sorted table, byte for byte as TensorFlow does (tensorflow/core/lib/io/{table,block}_builder.cc).

`table` reads one and says how it is laid out. A block's entries share prefixes with the key before, except at restart
points, where a reader may start; the index block holds, for each block, a key that is not below its last one.
"""

from __future__ import annotations

from typing import BinaryIO

from resnet_ref.weights.checkpoint.encode import varint
from resnet_ref.weights.checkpoint.source import masked_crc32c
from resnet_ref.weights.checkpoint.table import FOOTER_BYTES, MAGIC

# TensorFlow's defaults (lib/io/table_options.h).
_BLOCK_BYTES = 1 << 18
_RESTART_INTERVAL = 16
_UNCOMPRESSED = b"\0"


class TableWriter:
    """Writes to `file`, which is to be at its beginning: `add` every entry in ascending order, then `finish`.

    OSError where the file cannot be written.
    """

    def __init__(self, file: BinaryIO) -> None:
        self._file = file
        self._offset = 0
        self._block = _Block(_RESTART_INTERVAL)
        self._index = _Block(1)  # readers search in it: every key is a restart point
        self._last_key: bytes | None = None
        self._pending: bytes | None = None  # the handle of a block that is written, but not yet in the index

    def add(self, key: bytes, value: bytes) -> None:
        """Append an entry. Raises ValueError unless `key` is greater than the one before."""
        if self._last_key is not None:
            if key <= self._last_key:
                raise ValueError(f"a table's keys ascend, but {key!r} came after {self._last_key!r}")
            self._note_block(_separator(self._last_key, key))
        self._last_key = key
        self._block.add(key, value)
        if self._block.size >= _BLOCK_BYTES:
            self._end_block()

    def finish(self) -> None:
        """Write what is left, the index and the footer; the file stays open."""
        if self._block.count:
            self._end_block()
        meta = self._write(_Block(_RESTART_INTERVAL))  # always empty; formats of old kept filters here
        self._note_block(_successor(self._last_key or b""))
        footer = meta + self._write(self._index)
        self._file.write(footer.ljust(FOOTER_BYTES - len(MAGIC), b"\0") + MAGIC)

    def _end_block(self) -> None:
        self._pending = self._write(self._block)
        self._block = _Block(_RESTART_INTERVAL)

    def _note_block(self, key: bytes) -> None:
        """Enter the block that was written last into the index; only the next key tells how short `key` may be."""
        if self._pending is not None:
            self._index.add(key, self._pending)
            self._pending = None

    def _write(self, block: _Block) -> bytes:
        """Write a block with its trailer; return its handle."""
        data = block.encoded()
        handle = varint(self._offset) + varint(len(data))
        data += _UNCOMPRESSED
        data += masked_crc32c(data).to_bytes(4, "little")
        self._file.write(data)
        self._offset += len(data)
        return handle


class _Block:
    """Entries, with a restart point at every `interval`-th of them."""

    def __init__(self, interval: int) -> None:
        self.count = 0
        self._interval = interval
        self._data = bytearray()
        self._restarts = [0]
        self._last_key = b""

    @property
    def size(self) -> int:
        """Bytes that `encoded` will have."""
        return len(self._data) + 4 * len(self._restarts) + 4

    def add(self, key: bytes, value: bytes) -> None:
        if self.count and self.count % self._interval == 0:
            self._restarts.append(len(self._data))
            shared = 0
        else:
            shared = _common(self._last_key, key)
        self._data += varint(shared) + varint(len(key) - shared) + varint(len(value)) + key[shared:] + value
        self._last_key = key
        self.count += 1

    def encoded(self) -> bytes:
        restarts = b"".join(at.to_bytes(4, "little") for at in self._restarts)
        return bytes(self._data) + restarts + len(self._restarts).to_bytes(4, "little")


def _common(a: bytes, b: bytes) -> int:
    """Count the bytes in which both begin alike."""
    return next((at for at, (x, y) in enumerate(zip(a, b, strict=False)) if x != y), min(len(a), len(b)))


def _separator(last: bytes, following: bytes) -> bytes:
    """Return a key, no longer than `last`, from `last` on and before `following`."""
    at = _common(last, following)
    if at < min(len(last), len(following)) and last[at] + 1 < following[at]:
        return last[:at] + bytes([last[at] + 1])
    return last


def _successor(last: bytes) -> bytes:
    """Return a short key from `last` on."""
    for at, byte in enumerate(last):
        if byte != 255:
            return last[:at] + bytes([byte + 1])
    return last
