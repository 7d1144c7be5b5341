"""The sorted table: the file format of V1 checkpoints and of V2 indexes (tensorflow/core/lib/io/format.cc).

A table is blocks, then an index block, then a footer of 48 bytes. A block is a run of (key, value) entries whose keys
share prefixes with the key before; it ends in one byte of compression type and a checksum of everything before.
"""

from __future__ import annotations

from bisect import bisect_left
from collections.abc import Iterator

import numpy as np

from resnet_ref.errors import CheckpointError
from resnet_ref.weights.checkpoint.source import AGAIN, Source, masked_crc32c
from resnet_ref.weights.checkpoint.wire import DamagedError, decoding, varint

MAGIC = (0xDB4775248B80FB57).to_bytes(8, "little")
FOOTER_BYTES = 48
_TRAILER_BYTES = 5
# Prefix sharing lets a small file claim enormous keys; TensorFlow's names are a few hundred bytes.
_LONGEST_KEY = 4096
# Small variables share a block: keeping the last one spares reading it anew for each. Large ones would cost memory.
_KEPT_BLOCK_BYTES = 1 << 20


class Table:
    """Look up keys in, or walk through, the table in `source`. Every method raises CheckpointError."""

    def __init__(self, source: Source) -> None:
        self._source = source
        self._kept: tuple[int, dict[bytes, memoryview]] = (-1, {})
        if source.size < FOOTER_BYTES:
            raise CheckpointError(
                f"{source.name}: {source.size} bytes are too few: a table ends in a footer of {FOOTER_BYTES}. {AGAIN}"
            )
        footer = memoryview(source.read(source.size - FOOTER_BYTES, FOOTER_BYTES, "its footer"))
        if footer[40:] != MAGIC:
            raise CheckpointError(
                f"{source.name}: expected the table magic {MAGIC.hex()} in the last 8 bytes, "
                f"got {footer[40:].hex()}. {AGAIN}"
            )
        with decoding(f"{source.name}: its index"):
            _, at = _handle(footer, 0)
            index, _ = _handle(footer, at)
            entries = list(_entries(self._block(*index)))
            self._last_keys = [key for key, _ in entries]
            self._handles = [_whole_handle(value) for _, value in entries]
            if any(a >= b for a, b in zip(self._last_keys, self._last_keys[1:], strict=False)):
                raise DamagedError("its keys are not in ascending order")

    def get(self, key: bytes) -> memoryview | None:
        """Return the value of `key`, or None; reads one block at most."""
        number = bisect_left(self._last_keys, key)
        if number == len(self._handles):
            return None
        if self._kept[0] == number:
            return self._kept[1].get(key)
        self._kept = (-1, {})
        with decoding(f"{self._source.name}: block {number}"):
            block = self._block(*self._handles[number])
            entries = dict(_entries(block))
        if len(block) <= _KEPT_BLOCK_BYTES:
            self._kept = (number, entries)
        return entries.get(key)

    def items(self) -> Iterator[tuple[bytes, memoryview]]:
        """Yield every (key, value) in the order of the keys, a block at a time."""
        before: bytes | None = None
        for number, handle in enumerate(self._handles):
            with decoding(f"{self._source.name}: block {number}"):
                for key, value in _entries(self._block(*handle)):
                    if before is not None and key <= before:
                        raise DamagedError("its keys are not in ascending order")
                    before = key
                    yield key, value

    def _block(self, offset: int, size: int) -> memoryview:
        what = f"the table block at byte {offset}"
        data = self._source.read(offset, size + _TRAILER_BYTES, what)
        expected = int.from_bytes(data[-4:], "little")
        got = masked_crc32c(np.frombuffer(data, np.uint8)[:-4])
        if got != expected:
            raise CheckpointError(
                f"{self._source.name}: {what} has checksum {got:08x}, expected {expected:08x}. {AGAIN}"
            )
        if data[size] != 0:
            method = {1: "Snappy"}.get(data[size], f"method {data[size]}")
            raise CheckpointError(
                f"{self._source.name}: {what} is compressed with {method}; TensorFlow's own writers leave blocks "
                "uncompressed, and only those are read. Load it in TensorFlow and save it again."
            )
        return memoryview(data)[:size]


def _handle(data: memoryview, at: int) -> tuple[tuple[int, int], int]:
    """Return ((offset, size) of a block, the position after)."""
    offset, at = varint(data, at)
    size, at = varint(data, at)
    return (offset, size), at


def _whole_handle(data: memoryview) -> tuple[int, int]:
    handle, end = _handle(data, 0)
    if end != len(data):
        raise DamagedError(f"a block handle of {end} bytes is stored in {len(data)}")
    return handle


def _entries(block: memoryview) -> Iterator[tuple[bytes, memoryview]]:
    """Yield (key, value) of each entry of a block; raises DamagedError."""
    restarts = int.from_bytes(block[-4:], "little")
    end = len(block) - 4 - 4 * restarts
    if end < 0:
        raise DamagedError(f"a block of {len(block)} bytes claims {restarts} restart points")
    at, key = 0, b""
    while at < end:
        shared, at = varint(block, at)
        unshared, at = varint(block, at)
        size, at = varint(block, at)
        if shared > len(key) or at + unshared + size > end:
            raise DamagedError("an entry runs past the end of its block")
        if shared + unshared > _LONGEST_KEY:
            raise DamagedError(f"a key of {shared + unshared} bytes; at most {_LONGEST_KEY} were expected")
        key = key[:shared] + bytes(block[at : at + unshared])
        at += unshared
        yield key, block[at : at + size]
        at += size
