"""Take the files of a checkpoint out of a .tar or .tar.gz, trusting neither its names nor its sizes."""

from __future__ import annotations

import gzip
import shutil
import tarfile
import zlib
from pathlib import Path, PurePosixPath
from typing import IO, Protocol, Self, cast

from resnet_ref.errors import CheckpointError
from resnet_ref.weights.checkpoint.folder import STATE, Folder, data_prefix
from resnet_ref.weights.checkpoint.sniff import TABLE_START
from resnet_ref.weights.checkpoint.source import AGAIN

MOST_BYTES = 8 << 30  # unpacked, everything in the archive together; resnet_v1_200 with its optimizer is under 1 GiB
MOST_MEMBERS = 10_000
_MOST_HEADER_BYTES = 1 << 16
_CHUNK_BYTES = 1 << 20
_START_BYTES = 16
# What tarfile reads into memory whole.
_EXTENDED = (
    tarfile.XHDTYPE,
    tarfile.XGLTYPE,
    tarfile.SOLARIS_XHDTYPE,
    tarfile.GNUTYPE_LONGNAME,
    tarfile.GNUTYPE_LONGLINK,
)


def unpack(path: Path, name: str, gzipped: bool, into: Path) -> list[Folder]:
    """Write the members that may belong to a checkpoint into the folder `into`, under numbers for names.

    Returns the archive's folders, whose files are called as in the archive. Links, devices, sparse members and names
    that would garble a message are left out. Raises CheckpointError if the archive is damaged, or would unpack to more
    than MOST_BYTES.
    """
    folders: dict[str, dict[str, Path]] = {}
    try:
        with path.open("rb") as file, gzip.open(file) if gzipped else file as stream:
            bounded = _Bounded(stream, name)
            with tarfile.open(
                fileobj=cast(IO[bytes], bounded), mode="r|", bufsize=_CHUNK_BYTES, tarinfo=_Header
            ) as archive:
                for number, member in enumerate(archive):
                    if number == MOST_MEMBERS:
                        raise CheckpointError(
                            f"{name}: more than {MOST_MEMBERS} members: unpack it and name the checkpoint."
                        )
                    where = PurePosixPath(member.name)
                    target = into / f"{number}"
                    if _plain(member) and member.name.isprintable() and _take(archive, member, target, name):
                        folders.setdefault(str(where.parent), {})[where.name] = target
            while bounded.read(_CHUNK_BYTES):  # gzip keeps its checksum at the very end
                pass
    except (tarfile.TarError, EOFError, zlib.error, gzip.BadGzipFile) as error:
        kind = "gzip-compressed tar" if gzipped else "tar"
        raise CheckpointError(f"{name}: expected a complete {kind} archive, got {_one_line(error)}. {AGAIN}") from error
    except OSError as error:
        raise CheckpointError(f"{name}: cannot be unpacked: {error.strerror or _one_line(error)}.") from error
    return [Folder(f"{name}:{parent}" if parent != "." else name, files) for parent, files in folders.items()]


def _plain(member: tarfile.TarInfo) -> bool:
    return member.type in (tarfile.REGTYPE, tarfile.AREGTYPE) and not member.issparse()


def _take(archive: tarfile.TarFile, member: tarfile.TarInfo, target: Path, name: str) -> bool:
    """Write `member` to `target` if its name or its first bytes speak for a checkpoint; tell whether they do."""
    content = archive.extractfile(member)
    if content is None:
        return False
    start = content.read(_START_BYTES)
    base = PurePosixPath(member.name).name
    if not (base == STATE or base.endswith(".index") or data_prefix(base) or TABLE_START.match(start)):
        return False
    free = shutil.disk_usage(target.parent).free
    if member.size > free:
        raise CheckpointError(
            f"{name}: {member.name} unpacks to {member.size} bytes, but {target.parent} has only {free} free. "
            "Free some space, or point TMPDIR at another disk."
        )
    with target.open("xb") as file:
        file.write(start)
        shutil.copyfileobj(content, file, _CHUNK_BYTES)
    return True


def _one_line(error: Exception) -> str:
    return " ".join(str(error).split()) or type(error).__name__


class _Header(tarfile.TarInfo):
    """A member's header. tarfile holds extended headers in memory, whatever size they claim; this bounds it."""

    @classmethod
    def frombuf(cls, buf: bytes | bytearray, encoding: str, errors: str) -> Self:
        header = super().frombuf(buf, encoding, errors)
        if header.type in _EXTENDED and header.size > _MOST_HEADER_BYTES:
            raise tarfile.ReadError(f"an extended header of {header.size} bytes")
        return header


class _Readable(Protocol):
    def read(self, size: int, /) -> bytes: ...


class _Bounded:
    """A stream that raises CheckpointError once more than MOST_BYTES came out of it."""

    def __init__(self, stream: _Readable, name: str) -> None:
        self._stream = stream
        self._name = name
        self._left = MOST_BYTES

    def read(self, size: int) -> bytes:
        data = self._stream.read(size)
        self._left -= len(data)
        if self._left < 0:
            raise CheckpointError(
                f"{self._name}: unpacks to more than {MOST_BYTES} bytes. "
                "If that is meant so, unpack it and name the checkpoint."
            )
        return data
