"""The members of a zip file whose names, sizes and checksums nobody vouches for."""

import io
import os
import struct
import zipfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from resnet_ref.errors import CheckpointError
from resnet_ref.weights.checkpoint.source import AGAIN
from resnet_ref.weights.elsewhere.opening import require_file

MOST_MEMBERS = 10_000
# zipfile reads the list of members in one piece: this many bytes are some 10,000 of them.
MOST_AT_ONCE = 1 << 20
_CHUNK_BYTES = 1 << 18
ALONE = 'save the state dict alone: torch.save(model.state_dict(), "weights.pth")'
_ENCRYPTED = 1
# What zipfile raises over damage.
_DAMAGE = (
    zipfile.BadZipFile,
    NotImplementedError,
    RuntimeError,
    struct.error,
    OSError,
    ValueError,
    EOFError,
    OverflowError,
)


class ZipRecords:
    """An open zip file of stored members. sizes: name -> bytes. size: of the file. Raises CheckpointError."""

    def __init__(self, path: Path) -> None:
        self._name = str(path)
        require_file(path)
        try:
            self._file = _Bounded(path, "r")
        except (OSError, ValueError) as error:
            raise CheckpointError(f"{path}: cannot be opened: {getattr(error, 'strerror', None) or error}.") from None
        try:
            with self._decoding("its list of members"):
                self.size = self._file.seek(0, io.SEEK_END)
                self._zip = zipfile.ZipFile(self._file)
                self._members = self._checked()
        except BaseException:
            self._file.close()
            raise
        self.sizes = {name: member.file_size for name, member in self._members.items()}

    def read(self, name: str, most: int) -> bytes:
        """A whole member of at most `most` bytes."""
        size = self.sizes[name]
        if size > most:
            raise CheckpointError(f"{self._name}: {name!r} has {size} bytes, expected at most {most}.")
        raw = np.empty(size, np.uint8)
        self.read_into(raw, name, 0)
        return raw.tobytes()

    def read_into(self, raw: npt.NDArray[np.uint8], name: str, offset: int) -> None:
        """Fill `raw` with a member's bytes from `offset` on; all of the member is read, for its checksum."""
        with self._decoding(repr(name)), self._zip.open(self._members[name]) as member:
            at = 0
            while data := member.read(_CHUNK_BYTES):
                first, last = max(at, offset), min(at + len(data), offset + raw.size)
                if first < last:
                    raw[first - offset : last - offset] = np.frombuffer(data, np.uint8)[first - at : last - at]
                at += len(data)
            if at < offset + raw.size:
                raise zipfile.BadZipFile("it ends too early")

    def close(self) -> None:
        """Close the file; a later read raises CheckpointError."""
        self._zip.close()
        self._file.close()

    def _checked(self) -> dict[str, zipfile.ZipInfo]:
        members = self._zip.infolist()
        if len(members) > MOST_MEMBERS:
            raise zipfile.BadZipFile(f"more than {MOST_MEMBERS}")
        if any(member.filename.endswith("/constants.pkl") for member in members):  # some of it may be compressed
            raise CheckpointError(
                f"{self._name}: expected a state dict, got a TorchScript archive: "
                f"load it with torch.jit.load and {ALONE}."
            )
        found: dict[str, zipfile.ZipInfo] = {}
        for member in members:
            name = member.filename
            if name in found:
                raise zipfile.BadZipFile(f"{name[:100]!r} is there twice")
            if member.compress_type != zipfile.ZIP_STORED or member.file_size != member.compress_size:
                raise zipfile.BadZipFile(f"{name[:100]!r} is compressed, which torch.save does not do")
            if member.flag_bits & _ENCRYPTED:
                raise zipfile.BadZipFile(f"{name[:100]!r} is encrypted")
            found[name] = member
        if sum(member.file_size for member in members) > self.size:
            raise zipfile.BadZipFile("together they are larger than the file")
        for member in members:
            self._zip.open(member).close()  # its name stands before its bytes too
        return found

    @contextmanager
    def _decoding(self, what: str) -> Iterator[None]:
        try:
            yield
        except CheckpointError:
            raise
        except _DAMAGE as error:
            text = " ".join(str(error).split())[:200] or type(error).__name__
            raise CheckpointError(f"{self._name}: a zip file, but {what} cannot be read: {text}. {AGAIN}") from None


class _Bounded(io.FileIO):
    """A file that refuses to read much at once: zipfile believes whatever length a zip file claims."""

    def read(self, size: int | None = -1, /) -> Any:
        if size is None or size < 0:
            size = os.fstat(self.fileno()).st_size - self.tell()
        if size > MOST_AT_ONCE:
            raise zipfile.BadZipFile(f"it claims {size} bytes, expected at most {MOST_AT_ONCE}")
        return super().read(size)
