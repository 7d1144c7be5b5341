"""Opens a path that may lead to anything, and tells whether two readers have the same file."""

import io
import os
import stat

from resnet_ref.errors import ResnetRefError

Path = str | os.PathLike[str]
Identity = tuple[int, ...]


def open_plain(path: Path, error: type[ResnetRefError], advice: str) -> io.FileIO:
    """The file; `error` where it is none. A pipe is not waited for."""
    try:
        mode = os.stat(path).st_mode
        if stat.S_ISDIR(mode):
            raise error(f"{path} is a directory; {advice}")
        if not stat.S_ISREG(mode):
            raise error(f"{path} is a pipe, socket or device; copy its content into a file")
        return io.FileIO(path)
    except ResnetRefError:
        raise
    except (OSError, ValueError) as problem:
        raise error(f"cannot read {path}: {getattr(problem, 'strerror', None) or problem}") from None


def identity(descriptor: int) -> Identity:
    """Which file that is, and in which state: another one after each change."""
    status = os.fstat(descriptor)
    return status.st_dev, status.st_ino, status.st_size, status.st_mtime_ns
