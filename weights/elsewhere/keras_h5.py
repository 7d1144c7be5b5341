"""Reads the weights files of Keras 2 and 3: legacy .h5 (also a whole model), .weights.h5, and .keras.

`keras_contents` asks HDF5 where each array lies; here the numbers are read from that place.
"""

import json
import os
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, Self

import numpy as np
from numpy.typing import NDArray

from resnet_ref.errors import CheckpointError
from resnet_ref.isolation import LISTING_MEMORY, LISTING_SECONDS, isolated
from resnet_ref.weights.checkpoint.dtypes import dtype_of, to_array
from resnet_ref.weights.checkpoint.variable import Variable
from resnet_ref.weights.elsewhere.keras_contents import ADVICE, Contents, Stored, contents
from resnet_ref.weights.elsewhere.keras_names import container, names, titles_of
from resnet_ref.weights.elsewhere.opening import known, require_file
from resnet_ref.weights.finite import not_finite
from resnet_ref.weights.named_arrays import File

_BFLOAT16 = dtype_of(14)


class KerasFile:
    """An open file of Keras' weights: a `NamedArrays` whose names are LAYER/kernel, whatever the file's nesting.

    layers: the names of all layers, also of those without weights; a .weights.h5 of Keras 2 has keys like conv2d_7 in
    their place. config: the model's, where the file has it, else None.
    """

    kind = "Keras HDF5"

    def __init__(self, path: str | os.PathLike[str]) -> None:
        self.path = Path(path)
        require_file(self.path)
        try:
            self._size = self.path.stat().st_size
        except OSError as error:
            raise CheckpointError(f"cannot read {self.path}: {error.strerror}") from None
        found = _read_apart(os.fspath(self.path))
        _require_apart(self.path, found.arrays)
        self.config = None if found.config is None else _parsed(self.path, found.config)
        self.keras_version = found.keras_version
        titles = {**titles_of(self.config), **found.titles} if container(found.arrays) else {}
        self.layers = tuple(titles.get(key, key) for key in found.layers)
        self._stored: dict[str, Stored] = {}
        for path_in_file, name in names(found.arrays, titles).items():
            if name in self._stored:
                raise CheckpointError(f"{self.path} holds {name} twice; {ADVICE}")
            self._stored[name] = found.arrays[path_in_file]
        self.variables: Mapping[str, Variable] = {name: _variable(stored) for name, stored in self._stored.items()}

    @property
    def files(self) -> Sequence[File]:
        """The file itself."""
        return [File(str(self.path), self._size)]

    def read(self, name: str) -> NDArray[Any]:
        """The array, of floats that are finite; CheckpointError."""
        known(self, name)
        stored = self._stored[name]
        on_disk = np.dtype("<u2") if stored.dtype == "bfloat16" else np.dtype(stored.dtype)
        try:
            with open(self.path, "rb") as raw:
                raw.seek(stored.offset)
                data = raw.read(stored.nbytes)
        except OSError as error:
            raise CheckpointError(f"cannot read {self.path}: {error.strerror}") from None
        if len(data) != stored.nbytes:
            raise CheckpointError(f"{self.path}: {name} has {len(data)} bytes, expected {stored.nbytes}; {ADVICE}")
        array = np.frombuffer(data, on_disk).reshape(stored.shape)
        array = to_array(array, _BFLOAT16) if stored.dtype == "bfloat16" else array.astype(on_disk.newbyteorder("="))
        if bad := not_finite(array):
            raise CheckpointError(f"{self.path}: {name} holds {bad}; expected finite numbers")
        return array

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        """Nothing stays open."""


def _read_apart(path: str) -> Contents:
    """All that libhdf5 does, in a process of its own."""
    return isolated(contents, path, what=path, error=CheckpointError, memory=LISTING_MEMORY, seconds=LISTING_SECONDS)


def _require_apart(path: Path, arrays: Mapping[str, Stored]) -> None:
    """CheckpointError where two arrays share bytes: Keras writes none such."""
    end, before = 0, ""
    for name, stored in sorted(arrays.items(), key=lambda item: (item[1].offset, item[1].nbytes)):
        if stored.nbytes == 0:
            continue
        if stored.offset < end:
            raise CheckpointError(f"{path}: {name} lies where {before} lies; {ADVICE}")
        end, before = stored.offset + stored.nbytes, name


def _parsed(path: Path, text: str) -> Any:
    try:
        return json.loads(text)
    except (ValueError, RecursionError) as error:
        raise CheckpointError(f"{path}: the model's config is no JSON ({str(error)[:100]}); {ADVICE}") from None


def _variable(stored: Stored) -> Variable:
    if stored.dtype == "bfloat16":
        return Variable.of(_BFLOAT16, stored.shape)
    if stored.dtype.endswith(">"):
        return Variable(stored.dtype[1:-1], stored.shape, 0, stored.dtype[1:-1])
    dtype = np.dtype(stored.dtype).newbyteorder("=")
    return Variable(dtype, stored.shape, stored.nbytes, dtype.name)
