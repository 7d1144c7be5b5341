"""Slices: how a partitioned variable lies in pieces, under which key each is stored, and how they make one array."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from typing import Any, NamedTuple

import numpy as np
import numpy.typing as npt

from resnet_ref.weights.checkpoint.wire import DamagedError, Message, signed

Shape = tuple[int, ...]

_FULL = -1
_MOST_DIMENSIONS = 64  # NumPy's limit
_MOST_ELEMENTS = 1 << 58  # keeps every byte count within NumPy's 63 bits, also around a dimension of 0


class Slice(NamedTuple):
    """A box in a tensor: per dimension its start and length, as stored; length -1 means the whole dimension."""

    starts: tuple[int, ...]
    lengths: tuple[int, ...]

    def shape(self, whole: Shape) -> Shape:
        """Return the box's shape in a tensor of shape `whole`."""
        return tuple(full if n == _FULL else n for n, full in zip(self.lengths, whole, strict=True))

    def box(self, whole: Shape) -> tuple[slice, ...]:
        """Return the index that selects the box in a tensor of shape `whole`."""
        return tuple(slice(start, start + n) for start, n in zip(self.starts, self.shape(whole), strict=True))


def parse_shape(message: Message) -> Shape:
    """Return the shape in a TensorShapeProto; raises DamagedError if it is unknown or no array could have it."""
    if message.integer(3):
        raise DamagedError("its shape is unknown")
    if (rank := len(message.blobs(2))) > _MOST_DIMENSIONS:
        raise DamagedError(f"it claims {rank} dimensions; at most {_MOST_DIMENSIONS} can be held")
    shape = tuple(signed(size.integer(1)) for size in message.messages(2))
    if any(size < 0 for size in shape):
        raise DamagedError(f"its shape {shape} has a negative size")
    if math.prod(size for size in shape if size) > _MOST_ELEMENTS:
        raise DamagedError(f"its shape {shape} is absurdly large")
    return shape


def parse_slice(message: Message, shape: Shape) -> Slice:
    """Return the slice in a TensorSliceProto of a tensor of `shape`; raises DamagedError if it lies outside."""
    if (rank := len(message.blobs(1))) != len(shape):
        raise DamagedError(f"a slice has {rank} dimensions, its tensor has shape {shape}")
    extents = list(message.messages(1))
    starts = tuple(signed(extent.integer(1)) for extent in extents)
    lengths = tuple(signed(extent.integer(2)) if extent.has(2) else _FULL for extent in extents)
    for start, length, size in zip(starts, lengths, shape, strict=True):
        if start < 0 or length < _FULL or start + (size if length == _FULL else length) > size:
            raise DamagedError(f"a slice from {starts} of lengths {lengths} leaves the shape {shape}")
    return Slice(starts, lengths)


def slice_key(name: str, piece: Slice) -> bytes:
    """Return the table key of a slice: 0, the name, the rank and the extents in an encoding that sorts like they do.

    Source: EncodeTensorNameSlice in tensorflow/core/util/saved_tensor_slice_util.cc.
    """
    escaped = name.encode().replace(b"\x00", b"\x00\xff")
    rank = len(piece.starts)
    key = b"\x00" + escaped + b"\x00\x01" + (bytes([1, rank]) if rank else b"\x00")
    return key + b"".join(_ordered(n) for extent in zip(piece.starts, piece.lengths, strict=True) for n in extent)


def assemble(
    shape: Shape, dtype: np.dtype[Any], pieces: Sequence[Slice], read: Callable[[int], npt.NDArray[Any]]
) -> npt.NDArray[Any]:
    """Return the tensor of `shape` made of `pieces`; `read(i)` gives the array of the i-th.

    Raises DamagedError unless they cover it without gaps and overlaps.
    """
    covered = sum(math.prod(piece.shape(shape)) for piece in pieces)
    if not pieces or covered != math.prod(shape):
        raise DamagedError(f"its {len(pieces)} slices hold {covered} elements, its shape {shape} {math.prod(shape)}")
    if len(pieces) == 1:
        return read(0).reshape(shape)
    if not all(math.prod(piece.shape(shape)) for piece in pieces):  # any number of them would fit
        raise DamagedError(f"of its {len(pieces)} slices one holds nothing")
    whole = np.empty(shape, dtype)
    seen = np.zeros(shape, np.bool_)
    for number, piece in enumerate(pieces):
        box = piece.box(shape)
        if seen[box].any():  # as the counts agree, an overlap and a gap are one thing
            raise DamagedError(f"its slice from {piece.starts} overlaps another")
        seen[box] = True
        whole[box] = read(number)
    return whole


def _ordered(value: int) -> bytes:
    """Encode a signed integer in n bytes of 7 bits each; n leading ones (inverted if negative) keep the order."""
    n = (~value if value < 0 else value).bit_length() // 7 + 1
    header = ((1 << n) - 1) << (7 * n)
    return ((value & ((1 << 8 * n) - 1)) ^ header).to_bytes(n, "big")
