"""A hash of source files: part of the key under which something that they decide is remembered on disk."""

import hashlib
from pathlib import Path

KERNELS = Path(__file__).parents[1]
_SUFFIXES = (".py", ".cu", ".cuh")


def sources_hash(*folders: Path) -> str:
    """SHA-256, in hexadecimal, of the names and contents of all Python and CUDA files below these folders."""
    digest = hashlib.sha256()
    for folder in folders:
        for file in sorted(file for file in folder.rglob("*") if file.suffix in _SUFFIXES):
            content = file.read_bytes()
            digest.update(f"{file.relative_to(folder).as_posix()} {len(content)}\n".encode() + content)
    return digest.hexdigest()
