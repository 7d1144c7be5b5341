"""A file that is read piecewise: bounds first, then bytes, then (where the format has one) their checksum."""

from __future__ import annotations

import os
import threading
from pathlib import Path
from typing import Any

import google_crc32c
import numpy as np
import numpy.typing as npt

from resnet_ref.errors import CheckpointError

AGAIN = "The file is damaged or incomplete: copy or download it again."


# From here on a checksum is taken piece by piece before anything is allocated.
_LARGE_BYTES = 1 << 26
_PIECE_BYTES = 1 << 20


def masked_crc32c(data: bytes | npt.NDArray[np.uint8]) -> int:
    """Return the CRC-32C of `data` rotated and offset the way TensorFlow stores it.

    (A checksum of bytes that themselves hold checksums would be weak, hence the mask.)
    """
    return _masked(int(google_crc32c.value(data)))


def _masked(crc: int) -> int:
    return ((crc >> 15 | crc << 17) + 0xA282EAD8) & 0xFFFFFFFF


class Source:
    """One file, held open; `name` is what messages call it and `size` its length in bytes when it was opened."""

    def __init__(self, path: Path, name: str) -> None:
        self.name = name
        self._lock = threading.Lock()
        try:
            self._file = path.open("rb", buffering=0)
            self.size = self._file.seek(0, 2)
        except OSError as error:
            raise CheckpointError(f"{name}: cannot be opened: {error.strerror or error}.") from error

    def read(self, offset: int, size: int, what: str) -> bytes:
        """Return `size` bytes from `offset`; nothing is allocated unless the file has that many.

        Raises CheckpointError, which calls the bytes `what`.
        """
        self._check(offset, size, what)
        data = np.empty(size, np.uint8)
        self._fill(data, offset, what)
        return data.tobytes()

    def read_into(self, raw: npt.NDArray[np.uint8], offset: int, what: str) -> None:
        """Fill `raw` (uint8, contiguous) with the bytes from `offset` on. Raises CheckpointError."""
        self._check(offset, raw.size, what)
        self._fill(raw, offset, what)

    def _fill(self, raw: npt.NDArray[np.uint8], offset: int, what: str) -> None:
        done = 0
        try:
            while done < raw.size and (got := self._read_at(raw[done:].data, offset + done)):
                done += got
        except (OSError, ValueError) as error:
            raise CheckpointError(f"{self.name}: {what} cannot be read: {error}.") from error
        self._check_complete(done, raw.size, what)

    def _read_at(self, into: memoryview, offset: int) -> int:
        """How many bytes were read. Not by seeking: a forked child and its parent share the position in a file."""
        if hasattr(os, "preadv"):
            return os.preadv(self._file.fileno(), [into], offset)
        with self._lock:  # of threads; a system without preadv has no forks
            self._file.seek(offset)
            return self._file.readinto(into) or 0

    def require(self, checksum: int, offset: int, size: int, what: str) -> None:
        """Raise CheckpointError if so many bytes that memory matters have another checksum; few are not looked at.

        (A sparse file holds terabytes of zeros and takes no disk.)
        """
        self._check(offset, size, what)
        if size < _LARGE_BYTES:
            return
        crc = 0
        for at in range(offset, offset + size, _PIECE_BYTES):
            piece = self.read(at, min(_PIECE_BYTES, offset + size - at), what)
            crc = google_crc32c.extend(crc, piece)
        self.compare(_masked(crc), checksum, what)

    def compare(self, got: int, expected: int, what: str) -> None:
        """Raise CheckpointError unless the checksum of `what` is the expected one."""
        if got != expected:
            raise CheckpointError(f"{self.name}: {what} has checksum {got:08x}, expected {expected:08x}. {AGAIN}")

    def close(self) -> None:
        """Close the file; a later read raises CheckpointError."""
        self._file.close()

    def __enter__(self) -> Source:
        return self

    def __exit__(self, *_: Any) -> None:
        self.close()

    def _check(self, offset: int, size: int, what: str) -> None:
        if offset < 0 or size < 0 or offset + size > self.size:
            raise CheckpointError(
                f"{self.name}: {what} should be {size} bytes from byte {offset} on, "
                f"but the file has only {self.size} bytes. {AGAIN}"
            )

    def _check_complete(self, got: int, size: int, what: str) -> None:
        if got != size:
            raise CheckpointError(f"{self.name}: {what} has {size} bytes, but only {got} could be read. {AGAIN}")
