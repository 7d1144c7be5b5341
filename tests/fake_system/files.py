"""Windows' ways with files, and macOS' with limits.

On Windows what is open can be neither replaced nor removed, a folder cannot be opened, and what is flushed to the disk
must be open for writing.
"""

import errno
import fcntl
import functools
import os
import resource
import sys


def install(system):
    """For everybody in this process."""
    if system == "win32":
        for name in ("replace", "rename", "unlink", "remove"):
            setattr(os, name, _of_closed_files(getattr(os, name)))
        os.fsync = _fsync(os.fsync)
        os.open = _open(os.open)
    if system == "darwin":
        resource.setrlimit = _setrlimit(resource.setrlimit)


def _of_closed_files(real):
    @functools.wraps(real)
    def call(*paths, **options):
        if sys._getframe(1).f_globals.get("__name__") == "tempfile":  # which asks Windows to remove what it opens
            return real(*paths, **options)
        for path in paths:
            if not options and _is_open(path):
                raise PermissionError(errno.EACCES, "The process cannot access the file: it is being used", str(path))
        if real.__name__ == "rename" and os.path.lexists(paths[1]):
            raise FileExistsError(errno.EEXIST, "Cannot create a file when that file already exists", str(paths[1]))
        return real(*paths, **options)

    return call


def _is_open(path):
    if isinstance(path, int) or not os.path.isfile(path):
        return False
    wanted = os.path.realpath(os.fspath(path))
    for entry in os.listdir("/proc/self/fd"):
        try:
            if os.readlink(f"/proc/self/fd/{entry}") == os.fsdecode(wanted):
                return True
        except OSError:  # it was that of the listing
            continue
    return False


def _fsync(real):
    def fsync(descriptor):
        if fcntl.fcntl(descriptor, fcntl.F_GETFL) & os.O_ACCMODE == os.O_RDONLY:
            raise OSError(errno.EBADF, "Bad file descriptor")
        return real(descriptor)

    return fsync


def _open(real):
    def opened(path, flags, *arguments, **options):
        if not options.get("dir_fd") and os.path.isdir(path):
            raise PermissionError(errno.EACCES, "Permission denied", str(path))
        return real(path, flags, *arguments, **options)

    return opened


def _setrlimit(real):
    """macOS takes a limit of the address space, and does not hold anyone to it."""

    def setrlimit(kind, limits):
        if kind != resource.RLIMIT_AS:
            real(kind, limits)

    return setrlimit
