"""Writes a file so that its name holds either the old content or the new one, whole."""

import os
import secrets
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from resnet_ref.errors import WeightsError


@contextmanager
def replacing(destination: str | os.PathLike[str]) -> Iterator[Path]:
    """A new empty file beside `destination`, renamed to it when the block ends; removed when the block raises.

    WeightsError where the destination is a directory, or its folder is missing or not writable.
    """
    target = Path(destination)
    part = target.with_name(f".{target.name}.{secrets.token_hex(6)}.part")
    try:
        if target.is_dir():
            raise WeightsError(f"{target} is a directory; give the name of a file to write")
        os.close(os.open(part, os.O_CREAT | os.O_EXCL | os.O_WRONLY, 0o666))
    except OSError as error:
        raise WeightsError(
            f"cannot write {target}: {error.strerror}; choose a folder that exists and is writable"
        ) from None
    try:
        yield part
        _sync(part)
        os.replace(part, target)
        _sync(target.parent)
    except OSError as error:
        raise WeightsError(f"cannot write {target}: {error.strerror or error}; nothing was changed") from error
    finally:
        part.unlink(missing_ok=True)


def _sync(path: Path) -> None:
    if path.is_dir() and os.name == "nt":  # Windows opens no directories
        return
    descriptor = os.open(path, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)
