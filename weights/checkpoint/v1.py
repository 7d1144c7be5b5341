"""V1 checkpoints: one table, or one per shard, of messages (tensorflow/core/protobuf/saved_tensor_slice.proto).

The value of key "" lists the tensors and their slices; every other value holds one slice's elements.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import numpy.typing as npt

from resnet_ref.errors import CheckpointError
from resnet_ref.weights.checkpoint.dtypes import DType, dtype_of, to_array
from resnet_ref.weights.checkpoint.slices import Shape, Slice, assemble, parse_shape, parse_slice, slice_key
from resnet_ref.weights.checkpoint.source import Source
from resnet_ref.weights.checkpoint.table import MOST_ENTRIES, Table
from resnet_ref.weights.checkpoint.variable import Variable
from resnet_ref.weights.checkpoint.wire import DamagedError, Message, decoding, packed_varints

_KNOWN_VERSION = 1
_FIXED_WIDTH_FIELDS = (5, 6)  # float_val, double_val; all others are varints


@dataclass
class _Tensor:
    dtype: DType
    shape: Shape
    pieces: list[Slice] = field(default_factory=list)
    shards: list[int] = field(default_factory=list)  # the shard of each piece


class V1:
    """The tensors of a V1 checkpoint, by name in `variables`.

    The constructor reads each shard's index and list of tensors, nothing else. All methods raise CheckpointError.
    """

    def __init__(self, shards: Sequence[Source]) -> None:
        self._shards = shards
        self._tables = [Table(source) for source in shards]
        self._tensors: dict[str, _Tensor] = {}
        self._listed = 0  # tensors and slices, of all shards
        self._size = sum(source.size for source in shards)
        for number, source in enumerate(shards):
            with decoding(f"{source.name}: its list of tensors"):
                self._collect(number)
        self.variables = {name: Variable.of(tensor.dtype, tensor.shape) for name, tensor in self._tensors.items()}

    def read(self, name: str) -> npt.NDArray[Any]:
        """Return the tensor; the checksum of every block it comes from was found right."""
        tensor = self._tensors[name]
        if tensor.dtype.array is None or tensor.dtype.values is None:
            raise CheckpointError(
                f"{self._shards[0].name}: {name!r} holds {tensor.dtype.name}, which is not read here. "
                "Save it as float32."
            )
        with decoding(f"{self._shards[0].name}: {name!r}"):
            return assemble(tensor.shape, tensor.dtype.array, tensor.pieces, lambda i: self._piece(name, tensor, i))

    def _collect(self, number: int) -> None:
        """Add shard `number`'s tensors; raises DamagedError."""
        value = self._tables[number].get(b"")
        if value is None:
            raise DamagedError("there is none, so this table is no TensorFlow checkpoint")
        meta = Message(value).message(1)
        needed = meta.message(2).integer(2)
        if needed > _KNOWN_VERSION:
            raise CheckpointError(
                f"{self._shards[number].name}: it needs readers of version {needed}, this one has version "
                f"{_KNOWN_VERSION}. Save it with an earlier TensorFlow."
            )
        for entry in meta.messages(1):
            name, shape, dtype = entry.text(1), parse_shape(entry.message(2)), dtype_of(entry.integer(3))
            if math.prod(shape) > self._size:
                raise DamagedError(f"the shape {shape} of {name!r} has more elements than the file has bytes")
            tensor = self._tensors.setdefault(name, _Tensor(dtype, shape))
            if (tensor.dtype, tensor.shape) != (dtype, shape):
                raise DamagedError(f"{name!r} is {dtype.name} {shape} here, {tensor.dtype.name} {tensor.shape} before")
            self._listed += 1 + len(entry.blobs(4))
            if self._listed > MOST_ENTRIES:
                raise DamagedError(f"it has more than {MOST_ENTRIES} tensors and slices, many times what a ResNet has")
            pieces = [parse_slice(piece, shape) for piece in entry.messages(4)]
            tensor.pieces += pieces
            tensor.shards += [number] * len(pieces)

    def _piece(self, name: str, tensor: _Tensor, i: int) -> npt.NDArray[Any]:
        piece, shard = tensor.pieces[i], tensor.shards[i]
        value = self._tables[shard].get(slice_key(name, piece))
        with decoding(f"{self._shards[shard].name}: the slice from {piece.starts} of {name!r}"):
            if value is None:
                raise DamagedError("it is listed but not there")
            data = Message(value).message(2)
            if (data.text(1), parse_slice(data.message(2), tensor.shape)) != (name, piece):
                raise DamagedError(f"the elements stored there belong to {data.text(1)!r}")
            shape = piece.shape(tensor.shape)
            elements = _elements(data.message(3), tensor.dtype, math.prod(shape))
            return to_array(elements, tensor.dtype).reshape(shape)


def _elements(tensor: Message, dtype: DType, count: int) -> npt.NDArray[Any]:
    """Return the `count` elements in a TensorProto, as a new array of `dtype.stored` [count]; raises DamagedError."""
    assert dtype.stored is not None
    assert dtype.values is not None
    packed = tensor.blob(dtype.values)
    if dtype.values in _FIXED_WIDTH_FIELDS:
        if len(packed) != count * dtype.stored.itemsize:
            raise DamagedError(f"expected {count} elements of {dtype.name}, got {len(packed)} bytes")
        return np.frombuffer(packed, dtype.stored).copy()
    wide = packed_varints(packed, count)
    bits = np.dtype(f"u{dtype.stored.itemsize}") if dtype.stored.kind == "f" else dtype.stored
    narrow = wide.astype(bits)
    if (narrow != wide).any():
        raise DamagedError(f"an element does not fit into {dtype.name}")
    return narrow.view(dtype.stored)
