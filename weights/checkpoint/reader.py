"""Open a TensorFlow checkpoint of any kind and read its variables by slim's names."""

from __future__ import annotations

import difflib
import os
from collections.abc import Mapping
from contextlib import ExitStack
from pathlib import Path
from types import MappingProxyType, TracebackType
from typing import Any, NamedTuple, Self

import numpy.typing as npt

from resnet_ref.errors import CheckpointError
from resnet_ref.weights.checkpoint.bundle import Bundle, shard_count
from resnet_ref.weights.checkpoint.locate import Located, data_names, locate
from resnet_ref.weights.checkpoint.object_graph import GRAPH_KEY, full_names, listed_names
from resnet_ref.weights.checkpoint.source import Source
from resnet_ref.weights.checkpoint.v1 import V1
from resnet_ref.weights.checkpoint.variable import Variable
from resnet_ref.weights.checkpoint.wire import decoding
from resnet_ref.weights.scratch import scratch_folder

_MOST_BYTES = 1 << 31  # of one variable; a sparse file claims terabytes and takes no disk


class CheckpointFile(NamedTuple):
    """One file of a checkpoint: its path (`archive:folder/name` inside an archive) and its size in bytes."""

    path: str
    size: int


class Checkpoint:
    """An open checkpoint; made by `open_checkpoint`, closed by `close` or the end of a `with`.

    path: what was asked for. kind: "TensorFlow V1", "TensorFlow V2" or "TensorFlow 2 object". shards: how many files
    the values are spread over. files: those that are read. variables: name -> Variable, sorted by name; slots of an
    optimizer are among them, under the names TensorFlow gives them.
    """

    path: Path
    kind: str
    shards: int
    files: tuple[CheckpointFile, ...]
    variables: Mapping[str, Variable]

    def __init__(self, path: Path) -> None:
        self.path = path
        self._closing = ExitStack()
        self._closed = False
        try:
            located = locate(path, self._closing.enter_context(scratch_folder()))
            sources = self._open_v2(located) if located.index_file is not None else self._open_v1(located)
        except BaseException:
            self._closing.close()
            raise
        self.files = tuple(CheckpointFile(source.name, source.size) for source in sources)

    def read(self, name: str) -> npt.NDArray[Any]:
        """Return a variable's values as a new array of the dtype and shape that `variables` says.

        Its checksums have been verified. Raises CheckpointError for damage, for a name that is not there, and for a
        type (a string, say) that is no array of numbers.
        """
        if self._closed:
            raise CheckpointError(f"{self.path}: the checkpoint was closed; read inside its `with` block.")
        if name not in self.variables:
            near = difflib.get_close_matches(name, self.variables, n=3)
            hint = f"the nearest names are {', '.join(map(repr, near))}" if near else "see `variables` for those it has"
            raise CheckpointError(f"{self.path}: there is no variable {name!r}; {hint}.")
        if (size := self.variables[name].nbytes) > _MOST_BYTES:
            raise CheckpointError(
                f"{self.path}: {name!r} takes {size} bytes; at most {_MOST_BYTES} are read. No layer of a ResNet takes "
                "a tenth of that: check where the file comes from."
            )
        try:
            return self._format.read(self._keys[name])
        except MemoryError:
            raise CheckpointError(
                f"{self.path}: {name!r} takes {size} bytes, for which there is no memory. Free some."
            ) from None

    def close(self) -> None:
        """Close the files and remove what was unpacked."""
        self._closed = True
        self._closing.close()

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        self.close()

    def _open_v1(self, located: Located) -> list[Source]:
        sources = [self._source(located, name) for name in located.tables]
        self._format: V1 | Bundle = V1(sources)
        self.kind, self.shards = "TensorFlow V1", len(sources)
        self._list({name: name for name in self._format.variables})
        return sources

    def _open_v2(self, located: Located) -> list[Source]:
        assert located.index_file is not None
        index = self._source(located, located.index_file)
        data = [self._source(located, name) for name in data_names(located, shard_count(index))]
        bundle = self._format = Bundle(index, data)
        self.kind, self.shards = "TensorFlow V2", len(data)
        names = {name: name for name in bundle.variables}
        if GRAPH_KEY in names:
            self.kind = "TensorFlow 2 object"
            graph = bundle.read_text(GRAPH_KEY)
            with decoding(f"{index.name}: its object graph"):
                names = listed_names(names, full_names(graph))
        self._list(names)
        return [index, *data]

    def _source(self, located: Located, name: str) -> Source:
        return self._closing.enter_context(Source(located.folder.files[name], located.folder.shown(name)))

    def _list(self, keys: dict[str, str]) -> None:
        self._keys = keys
        self.variables = MappingProxyType({name: self._format.variables[keys[name]] for name in sorted(keys)})


def open_checkpoint(path: str | os.PathLike[str]) -> Checkpoint:
    """Open the TensorFlow checkpoint that `path` names, in any of the ways people name one.

    A V1 file (model.ckpt) or one of its shards; a V2 prefix, its .index, .data-00000-of-00001 or .meta; a folder,
    where the `checkpoint` state file chooses among several; a .tar or .tar.gz with any of these inside. Content
    decides, not the name. Only lists are read: values come with `Checkpoint.read`. Use it in a `with`.
    Raises CheckpointError.
    """
    return Checkpoint(Path(path))
