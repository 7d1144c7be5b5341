"""A hash of source files: part of the key under which something that they decide is remembered on disk."""

import hashlib
import sys
from pathlib import Path

KERNELS = Path(__file__).parents[1]
_SUFFIXES = (".py", ".cu", ".cuh")


def sources_hash(*folders: Path) -> str:
    """SHA-256, in hexadecimal, of the names and contents of all Python and CUDA files below these folders.

    Of a program that came without its sources: of its compiled modules, or of the executable that holds them.
    """
    digest = hashlib.sha256()
    for folder in folders:
        files = sorted(file for file in folder.rglob("*") if file.suffix in _SUFFIXES)
        for file in files or sorted(folder.rglob("*.pyc")) or [Path(sys.executable)]:
            content = file.read_bytes()
            name = file.relative_to(folder).as_posix() if file.is_relative_to(folder) else file.name
            digest.update(f"{name} {len(content)}\n".encode() + content)
    return digest.hexdigest()
