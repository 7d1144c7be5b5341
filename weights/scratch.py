"""Folders for what is unpacked: removed when they are done with, and those of the killed by whoever comes next."""

import os
import shutil
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

from resnet_ref.weights.atomic import locked

_PREFIX = "resnet-ref-unpacked-"


@contextmanager
def scratch_folder() -> Iterator[Path]:
    """A new folder where the system keeps temporary files, locked while it is in use."""
    while True:
        with tempfile.TemporaryDirectory(prefix=_PREFIX, ignore_cleanup_errors=True) as name, _held(name):
            if os.path.isdir(name):  # else it was taken for abandoned before it was locked
                _remove_abandoned(Path(name))
                yield Path(name)
                return


@contextmanager
def _held(folder: str) -> Iterator[None]:
    """The folder locked, where there are locks."""
    try:
        descriptor = os.open(folder, os.O_RDONLY)
    except OSError:  # gone; or a system that opens no folders
        yield
        return
    try:
        locked(descriptor)
        yield
    finally:
        os.close(descriptor)


def _remove_abandoned(ours: Path) -> None:
    """Remove the folders of this user that no living process holds."""
    with suppress(OSError):
        for entry in os.scandir(ours.parent):
            if entry.name.startswith(_PREFIX) and entry.name != ours.name and entry.is_dir(follow_symlinks=False):
                with suppress(OSError):
                    _remove_unless_held(entry)


def _remove_unless_held(folder: "os.DirEntry[str]") -> None:
    descriptor = os.open(folder.path, os.O_RDONLY | getattr(os, "O_NOFOLLOW", 0))
    try:
        if os.fstat(descriptor).st_uid == os.getuid() and locked(descriptor):
            shutil.rmtree(folder.path, ignore_errors=True)
    finally:
        os.close(descriptor)
