"""What every reader of a file of weights has: arrays by name, listed before any is read."""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple, Protocol, Self

import numpy.typing as npt

from resnet_ref.weights.checkpoint.variable import Variable


class File(NamedTuple):
    """One file that is read: its path, and its size in bytes."""

    path: str
    size: int


class NamedArrays(Protocol):
    """An open file, to be used in a `with`. path: what was asked for. kind: the format, as people call it. variables:
    what each array is, by its name in the file."""

    path: Path
    kind: str
    variables: Mapping[str, Variable]

    @property
    def files(self) -> Sequence[Any]:
        """Those that are read; each has a path and a size."""

    def read(self, name: str) -> npt.NDArray[Any]:
        """The array; CheckpointError where it is damaged, or no array of numbers."""

    def __enter__(self) -> Self: ...
    def __exit__(self, *_: Any) -> None: ...
