"""Writes a file so that its name holds either the old content or the new one, whole."""

import atexit
import os
import secrets
from collections.abc import Iterable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

from resnet_ref.errors import WeightsError

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

    A symbolic link stays one: the file it names is replaced. WeightsError where the destination is anything but a
    regular file, or its folder is missing or not writable.
    """
    try:
        target = Path(os.path.realpath(destination))
        if not os.fspath(destination) or target.is_dir():
            raise WeightsError(
                f"{os.fspath(destination) or 'an empty name'} is a directory; give the name of a file to write"
            )
        if target.exists() and not target.is_file():
            raise WeightsError(f"{destination} is a device, pipe or socket; give the name of a file to write")
        part = target.with_name(f".{target.name}.{secrets.token_hex(6)}.part")
    except OSError as error:
        raise _unwritable(destination, error) from None
    except ValueError as error:  # a null byte
        if isinstance(error, WeightsError):
            raise
        raise WeightsError(f"cannot write {os.fspath(destination)!r}: {error}; choose another name") from None
    _unfinished[part] = os.getpid()
    try:
        try:
            os.close(os.open(part, os.O_CREAT | os.O_EXCL | os.O_WRONLY, 0o666))
        except OSError as error:
            raise _unwritable(destination, error) from None
        try:
            yield part
            _sync(part)
            os.replace(part, target)
            _sync(target.parent)
        except OSError as error:
            raise WeightsError(f"cannot write {target}: {error.strerror or error}; nothing was changed") from error
    finally:
        with suppress(OSError):  # most often it is not there: renamed, or it never could be made
            part.unlink()
        del _unfinished[part]


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
    descriptor = os.open(path, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)
