"""Bytes that are dear to make, remembered on disk: compiled kernels, and choices that were timed.

Whatever is wrong with the folder or a file costs time, never an answer: a damaged entry is made anew, and where nothing
can be written nothing is. Entries may be machine code, so what others can write to is not used at all. Windows does not
tell Python who can: there it is for who names a folder to name a private one, as %LOCALAPPDATA% is.
"""

import hashlib
import os
import stat
import sys
import tempfile
from collections.abc import Callable
from pathlib import Path

VARIABLE = "RESNET_REF_CACHE_DIR"
_DIGEST = 32  # bytes of SHA-256, in front of each entry


def folder() -> Path | None:
    """Where entries are kept: $RESNET_REF_CACHE_DIR, or the user's cache folder; None where there is no such place."""
    if named := os.environ.get(VARIABLE):
        return Path(named)
    if named := os.environ.get("XDG_CACHE_HOME"):
        return Path(named) / "resnet-ref"
    if sys.platform == "win32" and (named := os.environ.get("LOCALAPPDATA")):
        return Path(named) / "resnet-ref" / "Cache"
    try:
        home = Path.home()
    except RuntimeError:
        return None
    if not home.is_dir() or home == Path(home.anchor):  # a service's, which has no home
        return None
    return home / ("Library/Caches" if sys.platform == "darwin" else ".cache") / "resnet-ref"


def cached(key: str, make: Callable[[], bytes], stamp: bytes = b"") -> bytes:
    """The entry of this name, or what `make` returns, which is then kept. key: letters, digits, - and _.

    stamp: what an entry begins with on disk; one that does not is made anew.
    """
    entry = read(key)
    if entry is None or not entry.startswith(stamp):
        entry = stamp + make()
        write(key, entry)
    return entry[len(stamp) :]


def read(key: str) -> bytes | None:
    """The entry, or None where there is none, or it is damaged, or others could have written it."""
    place = folder()
    if place is None or not _is_ours(place):
        return None
    if not _is_ours(place / key, stat.S_ISREG):
        return None
    try:
        content = (place / key).read_bytes()
    except OSError:
        return None
    digest, data = content[:_DIGEST], content[_DIGEST:]
    return data if hashlib.sha256(data).digest() == digest else None


def write(key: str, data: bytes) -> None:
    """Keeps an entry, whole or not at all, whoever else writes it at the same time."""
    place = folder()
    if place is None:
        return
    try:
        place.mkdir(mode=0o700, parents=True, exist_ok=True)
        if not _is_ours(place):
            return
        handle, name = tempfile.mkstemp(dir=place, prefix=f".{key}-")
        try:
            with os.fdopen(handle, "wb") as file:
                file.write(hashlib.sha256(data).digest() + data)
            os.replace(name, place / key)
        except BaseException:
            os.unlink(name)
            raise
    except OSError:
        return


def _is_ours(place: Path, is_kind: Callable[[int], bool] = stat.S_ISDIR) -> bool:
    """Whether it is a folder (or of another kind) that only this user can write."""
    try:
        found = place.stat()
    except OSError:
        return False
    others_write = hasattr(os, "geteuid") and (found.st_uid != os.geteuid() or found.st_mode & 0o022)
    return is_kind(found.st_mode) and not others_write
