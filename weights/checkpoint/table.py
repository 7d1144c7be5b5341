"""The sorted table: the file format of V1 checkpoints and of V2 indexes (tensorflow/core/lib/io/format.cc).

A table is blocks, then an index block, then a footer of 48 bytes. A block is a run of (key, value) entries whose keys
share prefixes with the key before; it ends in one byte of compression type and a checksum of everything before.
"""

from __future__ import annotations

from bisect import bisect_left
from collections.abc import Iterator
from itertools import pairwise

import numpy as np

from resnet_ref.errors import CheckpointError
from resnet_ref.weights.checkpoint.source import AGAIN, Source, masked_crc32c
from resnet_ref.weights.checkpoint.wire import DamagedError, decoding, varint

MAGIC = (0xDB4775248B80FB57).to_bytes(8, "little")
FOOTER_BYTES = 48
_TRAILER_BYTES = 5
# Prefix sharing lets a small file claim enormous keys; TensorFlow's names are a few hundred bytes.
_LONGEST_KEY = 4096
_MOST_KEY_BYTES = 1 << 24
# One entry may be no more than its four bytes, and takes a thousand in memory. The largest ResNet has a few thousand,
# the slots of its optimizer included.
MOST_ENTRIES = 1 << 16
# Protocol buffers end at 2 GiB, and the largest layer anybody trained takes a tenth of this.
_MOST_BLOCK_BYTES = 1 << 30
# TensorFlow ends a block after the entry that takes it beyond 256 KiB. (An index is one block, of a few KiB.)
_FULL_BLOCK_BYTES = 1 << 22


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
            if index[1] > _FULL_BLOCK_BYTES:
                raise DamagedError(f"it claims {index[1]} bytes; at most {_FULL_BLOCK_BYTES} were expected")
            entries = list(_entries(self._block(*index)))
            self._last_keys = [key for key, _ in entries]
            self._handles = [_whole_handle(value) for _, value in entries]
            self._check_handles(index[0])

    def get(self, key: bytes) -> memoryview | None:
        """Return the value of `key`, or None; reads one block at most.

        Small variables share a block: its entries are kept, but for the last, which may be a large variable.
        """
        number = bisect_left(self._last_keys, key)
        if number == len(self._handles):
            return None
        if self._kept[0] == number and key in self._kept[1]:
            return self._kept[1][key]
        self._kept = (-1, {})
        with decoding(f"{self._source.name}: block {number}"):
            entries = list(_entries(self._block(*self._handles[number])))
        # Copies: a view would hold the whole block.
        self._kept = (number, {name: memoryview(bytes(value)) for name, value in entries[:-1]})
        return dict(entries).get(key)

    def items(self) -> Iterator[tuple[bytes, memoryview]]:
        """Yield every (key, value) in the order of the keys, a block at a time."""
        before: bytes | None = None
        count = key_bytes = 0
        for number, handle in enumerate(self._handles):
            with decoding(f"{self._source.name}: block {number}"):
                for key, value in _entries(self._block(*handle)):
                    if before is not None and key <= before:
                        raise DamagedError("its keys are not in ascending order")
                    before, count, key_bytes = key, count + 1, key_bytes + len(key)
                    _check_amount(count, key_bytes)
                    yield key, value

    def _check_handles(self, end: int) -> None:
        """Raise DamagedError unless the blocks lie one after another, before `end`, in the order of their keys.

        So each byte of the file belongs to one block at most, whatever the number of handles.
        """
        if any(a >= b for a, b in pairwise(self._last_keys)):
            raise DamagedError("its keys are not in ascending order")
        at = 0
        for offset, size in self._handles:
            if offset < at:
                raise DamagedError(
                    f"its blocks are not in ascending order: one at byte {offset}, the one before ends at byte {at}"
                )
            at = offset + size + _TRAILER_BYTES
        if end < at <= self._source.size:
            raise DamagedError(f"its last block ends at byte {at}, but the index begins at byte {end}")

    def _block(self, offset: int, size: int) -> memoryview:
        what = f"the table block at byte {offset}"
        expected = int.from_bytes(self._source.read(offset + size + 1, 4, what), "little")
        if size > _MOST_BLOCK_BYTES:
            raise DamagedError(f"{what} claims {size} bytes; at most {_MOST_BLOCK_BYTES} were expected")
        self._source.require(expected, offset, size + 1, what)
        data = self._source.read(offset, size + _TRAILER_BYTES, what)
        self._source.compare(masked_crc32c(np.frombuffer(data, np.uint8)[:-4]), expected, what)
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
    count = key_bytes = 0
    while at < end:
        if at > _FULL_BLOCK_BYTES:
            raise DamagedError(f"a block goes on after {at} bytes; its last entry begins before {_FULL_BLOCK_BYTES}")
        shared, at = varint(block, at)
        unshared, at = varint(block, at)
        size, at = varint(block, at)
        if shared > len(key) or at + unshared + size > end:
            raise DamagedError("an entry runs past the end of its block")
        if shared + unshared > _LONGEST_KEY:
            raise DamagedError(f"a key of {shared + unshared} bytes; at most {_LONGEST_KEY} were expected")
        before, key = key, key[:shared] + bytes(block[at : at + unshared])
        if count and key <= before:
            raise DamagedError("its keys are not in ascending order")
        count, key_bytes = count + 1, key_bytes + len(key)
        _check_amount(count, key_bytes)
        at += unshared
        yield key, block[at : at + size]
        at += size


def _check_amount(count: int, key_bytes: int) -> None:
    """Raise DamagedError for more entries, or longer keys, than memory should be spent on."""
    if count > MOST_ENTRIES:
        raise DamagedError(f"more than {MOST_ENTRIES} entries, many times what a ResNet has")
    if key_bytes > _MOST_KEY_BYTES:
        raise DamagedError(f"keys of more than {_MOST_KEY_BYTES} bytes, many times what a ResNet has")
