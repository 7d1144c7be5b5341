"""Take the files of a checkpoint out of a .tar or .tar.gz, trusting neither its names nor its sizes."""

from __future__ import annotations

import gzip
import shutil
import zlib
from pathlib import Path, PurePosixPath

from resnet_ref.errors import CheckpointError
from resnet_ref.weights.checkpoint.folder import STATE, Folder, data_prefix
from resnet_ref.weights.checkpoint.sniff import TABLE_START
from resnet_ref.weights.checkpoint.source import AGAIN
from resnet_ref.weights.checkpoint.tar import Member, Readable, Tar, TarError

MOST_BYTES = 8 << 30  # unpacked, everything in the archive together; resnet_v1_200 with its optimizer is under 1 GiB
MOST_MEMBERS = 10_000
# Weights hardly compress, a bomb does a thousandfold. Small archives of zeros may be meant.
_MOST_TIMES = 100
_MOST_BYTES_ANYWAY = 256 << 20
_CHUNK_BYTES = 1 << 20
_START_BYTES = 16


def unpack(path: Path, name: str, gzipped: bool, into: Path) -> list[Folder]:
    """Write the members that may belong to a checkpoint into the folder `into`, under numbers for names.

    Returns the archive's folders, whose files are called as in the archive. Links, devices, sparse members and names
    that would garble a message are left out. Raises CheckpointError if the archive is damaged, or would unpack to more
    than MOST_BYTES.
    """
    folders: dict[str, dict[str, Path]] = {}
    try:
        with path.open("rb") as file, gzip.open(file) if gzipped else file as stream:
            bounded = _Bounded(stream, name, path.stat().st_size)
            tar = Tar(bounded)
            for number, member in enumerate(tar):
                if number == MOST_MEMBERS:
                    raise CheckpointError(
                        f"{name}: more than {MOST_MEMBERS} members: unpack it and name the checkpoint."
                    )
                where = PurePosixPath(member.name)
                target = into / f"{number}"
                if member.regular and member.name.isprintable() and _take(tar, member, target, name):
                    folders.setdefault(str(where.parent), {})[where.name] = target
            while bounded.read(_CHUNK_BYTES):  # gzip keeps its checksum at the very end
                pass
    except (TarError, EOFError, zlib.error, gzip.BadGzipFile) as error:
        kind = "gzip-compressed tar" if gzipped else "tar"
        raise CheckpointError(f"{name}: expected a complete {kind} archive, got {_one_line(error)}. {AGAIN}") from error
    except OSError as error:
        raise CheckpointError(f"{name}: cannot be unpacked: {error.strerror or _one_line(error)}.") from error
    return [Folder(f"{name}:{parent}" if parent != "." else name, files) for parent, files in folders.items()]


def _take(tar: Tar, member: Member, target: Path, name: str) -> bool:
    """Write `member` to `target` if its name or its first bytes speak for a checkpoint; tell whether they do."""
    start = tar.read(_START_BYTES)
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
        while chunk := tar.read(_CHUNK_BYTES):
            file.write(chunk)
    return True


def _one_line(error: Exception) -> str:
    return " ".join(str(error).split()) or type(error).__name__


class _Bounded:
    """A stream that raises CheckpointError once more came out of it than any archive of `packed` bytes should hold."""

    def __init__(self, stream: Readable, name: str, packed: int) -> None:
        self._stream = stream
        self._name = name
        self._most = min(MOST_BYTES, max(_MOST_BYTES_ANYWAY, _MOST_TIMES * packed))
        self._left = self._most

    def read(self, size: int) -> bytes:
        data = self._stream.read(size)
        self._left -= len(data)
        if self._left < 0:
            raise CheckpointError(
                f"{self._name}: unpacks to more than {self._most} bytes. "
                "If you trust it, and that is meant so, unpack it and name the checkpoint."
            )
        return data
