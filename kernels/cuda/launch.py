"""What a launch consists of: a kernel of a .cu file compiled with its tile sizes, a grid of blocks, arguments.

A launcher (any gpu.py) only makes these and hands them to its `Runtime`, so that the grid can be checked, or the whole
be run elsewhere, without a device.
"""

import re
from functools import cache
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from resnet_ref.errors import DeviceError

FOLDER = Path(__file__).parents[1]  # .cu files are named, and include headers, from here
OPTIONS = ("-std=c++17",)
_INCLUDE = re.compile(r'^#include "(.+)"$', re.MULTILINE)
MOST_THREADS = 1024  # of a block
MOST_BLOCKS = ((1 << 31) - 1, 65535, 65535)  # of a grid, by axis
ALIGNMENT = 16  # bytes, at which kernels that read in fours want an array to begin
ADDRESSABLE = (1 << 31) - 1  # elements of an array: kernels index with int
BLOCK = 256  # threads of a block where nothing speaks for another number
BLOCKS_PER_SM = 32  # of a kernel that walks its elements in a grid-stride loop


class Source(NamedTuple):
    """A .cu file, named from kernels/, and what is defined when it is compiled: ((name, value), ...)."""

    file: str
    defines: tuple[tuple[str, int], ...] = ()

    @property
    def text(self) -> str:
        """The file, with the headers of ours that it includes in their places, each once."""
        return _text(self.file)

    @property
    def options(self) -> tuple[str, ...]:
        """The compiler's options: NVRTC and the tests' compiler take the same."""
        return (*OPTIONS, *(f"-D{name}={value}" for name, value in self.defines))


@cache
def _text(file: str) -> str:
    included: set[str] = set()

    def expand(name: str) -> str:
        if name in included:
            return ""
        included.add(name)
        lines = []
        for number, line in enumerate((FOLDER / name).read_text("utf-8").splitlines(), 1):
            found = _INCLUDE.match(line)
            lines.append(f'{expand(found[1])}#line {number + 1} "{name}"' if found else line)
        return "\n".join([f'#line 1 "{name}"', *lines, ""])

    return expand(file)


def source(file: str, **defines: int) -> Source:
    """The file with these defines; the same for the same ones, whatever their order."""
    return Source(file, tuple(sorted(defines.items())))


class Launch(NamedTuple):
    """kernel<<<grid, block>>>(arguments). Arguments: device arrays, None for a null pointer, or NumPy scalars of
    exactly the parameter's type."""

    source: Source
    kernel: str
    grid: tuple[int, int, int]
    block: int
    arguments: tuple[Any, ...]

    @property
    def is_empty(self) -> bool:
        """Whether there is no block to run."""
        return 0 in self.grid

    def check(self) -> "Launch":
        """Itself; DeviceError where no device could launch it."""
        if any(n > most for n, most in zip(self.grid, MOST_BLOCKS, strict=True)) or not 0 < self.block <= MOST_THREADS:
            raise DeviceError(
                f"{self.kernel}: a grid of {list(self.grid)} blocks of {self.block} threads is more than a device "
                "launches; give fewer images at a time"
            )
        for argument in self.arguments:
            if getattr(argument, "size", 0) > ADDRESSABLE:
                raise DeviceError(
                    f"{self.kernel}: an array of {argument.size} numbers is more than the {ADDRESSABLE} that a gpu "
                    "kernel indexes; give fewer images at a time"
                )
        return self


def int32(*values: int) -> tuple[np.int32, ...]:
    """Whole numbers as `int` parameters; DeviceError for one that is none."""
    for value in values:
        if abs(value) > ADDRESSABLE:
            raise DeviceError(
                f"{value} is more than the {ADDRESSABLE} that a gpu kernel counts to; give fewer images at a time"
            )
    return tuple(map(np.int32, values))


def float32(*values: float) -> tuple[np.float32, ...]:
    """Numbers as `float` parameters."""
    return tuple(map(np.float32, values))


def blocks_for(elements: int, multiprocessors: int) -> tuple[int, int, int]:
    """The grid of a grid-stride loop over elements: a thread for each, but no more blocks than keep a device busy."""
    return min(-(-elements // BLOCK), multiprocessors * BLOCKS_PER_SM), 1, 1
