"""The seal of a weights file: 512 bytes of text that HDF5 leaves to its users, before its own.

A magic line, a version, the file's size, and the SHA-256 of all that follows. It is verified before libhdf5 sees a
byte, so a flipped bit anywhere is one error.
"""

import hashlib
import io
import os
import re

from resnet_ref.errors import ResnetRefError
from resnet_ref.weights.plain_file import Path

SEALED = b"resnet-ref sealed HDF5\n"
BYTES = 512  # the smallest user block there is
_VERSION = 2


def seal(raw: io.FileIO) -> bytes:
    """What the first bytes of a finished file should be."""
    size = raw.seek(0, os.SEEK_END)
    raw.seek(BYTES)
    sha = hashlib.file_digest(raw, "sha256").hexdigest()
    text = b"%sversion %d\nbytes %d\nsha256 %s\n" % (SEALED, _VERSION, size, sha.encode())
    return text + b"\n" * (BYTES - len(text))


def verify(path: Path, raw: io.FileIO, error: type[ResnetRefError], advice: str) -> None:
    """`error` unless a file with a seal has the one that it should have, to the byte."""
    raw.seek(0)
    start = raw.read(BYTES)
    version = re.match(rb"version ([0-9]{1,9})\n", start[len(SEALED) :])
    if version and int(version[1]) > _VERSION:
        said = int(version[1])
        raise error(f"{path} has format version {said}, this resnet-ref reads {_VERSION}; use a newer resnet-ref")
    size = re.search(rb"\nbytes ([0-9]{1,18})\n", start)
    if size and int(size[1]) != (found := os.fstat(raw.fileno()).st_size):
        raise error(f"{path} is damaged: it has {found:,} bytes, and it says {int(size[1]):,}; {advice}")
    if start != seal(raw):
        raise error(f"{path} is damaged: its bytes do not have the SHA-256 that its first lines say; {advice}")
