"""Writes a file so that its name holds either the old content or the new one, whole.

Until then it is `.NAME.xxxxxxxxxxxx.part`, locked by who writes it. Who is killed leaves it there, without the
lock, and the next to write the same NAME removes it.
"""

import atexit
import os
import re
import secrets
import stat
from collections.abc import Iterable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

from resnet_ref.errors import WeightsError

try:
    import fcntl
except ImportError:  # without locks nobody can say what is still being written, and what is left is left
    fcntl = None  # type: ignore[assignment]

# A signal may end us between two lines that no `finally` covers, such as those of contextlib's own: what is left then
# is removed as Python exits. With the process it belongs to, because a forked child exits too.
_unfinished: dict[Path, int] = {}


@atexit.register
def _remove_unfinished() -> None:
    for part, process in _unfinished.items():
        if process == os.getpid():
            with suppress(OSError):
                part.unlink()


@contextmanager
def replacing(destination: str | os.PathLike[str]) -> Iterator[Path]:
    """A new empty file beside `destination`, renamed to it when the block ends; removed when the block raises.

    A symbolic link stays one: the file it names is replaced. What others left who were killed while they wrote the same
    destination is removed. WeightsError where the destination is anything but a regular file, or its folder is missing
    or not writable.
    """
    target = _target(destination)
    with _part(target, destination) as part:
        try:
            _remove_abandoned(target)
            yield part
            _sync(part)
            os.replace(part, target)
            _sync(target.parent)
        except OSError as error:
            raise WeightsError(f"cannot write {target}: {error.strerror or error}; nothing was changed") from error


def require_writable(destination: str | os.PathLike[str], inputs: Iterable[str | os.PathLike[str]] = ()) -> None:
    """What `replacing` and `require_another` raise before anything is written; to be called before long work."""
    require_another(destination, inputs)
    with _part(_target(destination), destination):
        pass


@contextmanager
def _part(target: Path, destination: str | os.PathLike[str]) -> Iterator[Path]:
    """A new locked file beside the target, which is gone at the end unless it was renamed."""
    part = target.with_name(f".{target.name}.{secrets.token_hex(6)}.part")
    _unfinished[part] = os.getpid()
    try:
        try:
            lock = _created(part)
        except OSError as error:
            raise _unwritable(destination, error) from None
        try:
            yield part
        finally:
            if lock is not None:
                os.close(lock)
    finally:
        with suppress(OSError):  # most often it is not there: renamed, or it never could be made
            part.unlink()
        del _unfinished[part]


def _target(destination: str | os.PathLike[str]) -> Path:
    """The file that a destination names; WeightsError where that is no name of a regular file."""
    try:
        target = Path(os.path.realpath(destination))
        if not os.fspath(destination) or target.is_dir():
            raise WeightsError(
                f"{os.fspath(destination) or 'an empty name'} is a directory; give the name of a file to write"
            )
        if target.is_symlink():  # what realpath could not follow
            raise WeightsError(f"{destination} is a link that leads to itself; give the name of a file to write")
        if target.exists() and not target.is_file():
            raise WeightsError(f"{destination} is a device, pipe or socket; give the name of a file to write")
    except OSError as error:
        raise _unwritable(destination, error) from None
    except ValueError as error:  # a null byte
        if isinstance(error, WeightsError):
            raise
        raise WeightsError(f"cannot write {os.fspath(destination)!r}: {error}; choose another name") from None
    return target


def _created(part: Path) -> int | None:
    """Make the file; a descriptor that locks it, or None where there are no locks: Windows renames no open file."""
    while True:
        os.close(os.open(part, os.O_CREAT | os.O_EXCL | os.O_WRONLY, 0o666))
        if fcntl is None:
            return None
        with suppress(FileNotFoundError):  # someone took it for abandoned before it was locked
            lock = os.open(part, os.O_RDONLY)
            if locked(lock, wait=True) is False or os.fstat(lock).st_nlink:
                return lock
            os.close(lock)


def locked(descriptor: int, wait: bool = False) -> bool:
    """Whether the file is locked by us now. Not where another holds it, or where there are no locks."""
    if fcntl is None:
        return False
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX | (0 if wait else fcntl.LOCK_NB))
    except OSError:
        return False
    return True


def _remove_abandoned(target: Path) -> None:
    """Remove what was to become `target` and that no living process holds."""
    if fcntl is None:  # and looking would keep a living one from renaming it
        return
    name = re.compile(re.escape(f".{target.name}.") + r"[0-9a-f]{12}\.part")
    with suppress(OSError):
        for entry in os.scandir(target.parent):
            if name.fullmatch(entry.name) and entry.is_file(follow_symlinks=False):
                with suppress(OSError):
                    _remove_unless_held(entry.path)


def _remove_unless_held(part: str) -> None:
    descriptor = os.open(part, os.O_RDONLY | getattr(os, "O_NOFOLLOW", 0) | getattr(os, "O_NONBLOCK", 0))
    try:
        if stat.S_ISREG(os.fstat(descriptor).st_mode) and locked(descriptor):
            os.unlink(part)
    finally:
        os.close(descriptor)


def _unwritable(destination: str | os.PathLike[str], error: OSError) -> WeightsError:
    return WeightsError(f"cannot write {destination}: {error.strerror}; choose a folder that exists and is writable")


def require_another(destination: str | os.PathLike[str], inputs: Iterable[str | os.PathLike[str]]) -> None:
    """WeightsError where the destination is one of the files that it is made from."""
    for path in inputs:
        if os.path.exists(destination) and os.path.exists(path) and os.path.samefile(destination, path):
            raise WeightsError(f"{destination} is one of the files it is made from; give another name to write to")


def _sync(path: Path) -> None:
    if path.is_dir() and os.name == "nt":  # Windows opens no directories
        return
    # Windows flushes nothing that is open for reading alone; nobody opens a folder for writing.
    descriptor = os.open(path, os.O_RDONLY if path.is_dir() else os.O_RDWR)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)
