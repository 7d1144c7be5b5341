"""Writes a V2 checkpoint, byte for byte as TensorFlow's Saver does (tensorflow/core/util/tensor_bundle).

`bundle` reads one. The data file is the arrays' bytes in order of names; the index has an entry for each that says
type, shape, place and checksum, after a header under the empty key.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any, BinaryIO

import numpy as np
import numpy.typing as npt

from resnet_ref.errors import WeightsError
from resnet_ref.weights.checkpoint.encode import embedded, fixed32, integer
from resnet_ref.weights.checkpoint.source import masked_crc32c
from resnet_ref.weights.checkpoint.table_writer import TableWriter

_FLOAT32 = 1  # types.proto
_VERSION = 1
# BundleHeaderProto: one data file; little-endian, which is 0; written by this version of the format.
_HEADER = integer(1, 1) + embedded(3, integer(1, _VERSION))
# What tf.Graph lets an operation be called (python/framework/ops.py), and so a variable.
_NAME = re.compile(r"[A-Za-z0-9.][A-Za-z0-9_.\\/>-]*")


def check_names(names: Iterable[str]) -> None:
    """Raise WeightsError for a name that no variable of a TensorFlow graph can have: nothing could restore it."""
    for name in names:
        if not _NAME.fullmatch(name):
            raise WeightsError(
                f"TensorFlow gives no variable the name {name!r:.200}: names are made of the letters, digits and "
                r"_ . \ / > - of ASCII, and begin with a letter, digit or dot; save the weights under another scope"
            )


def write_bundle(index: BinaryIO, data: BinaryIO, arrays: Mapping[str, npt.NDArray[Any]]) -> None:
    """Write `arrays`, of any shapes, as float32 (little-endian, rows first) to two open, empty files.

    Raises WeightsError for a name that TensorFlow refuses, OSError where a file cannot be written.
    """
    check_names(arrays)
    table = TableWriter(index)
    table.add(b"", _HEADER)
    offset = 0
    for name in sorted(arrays):  # ASCII: bytes sort as characters do
        array = np.asarray(arrays[name], "<f4", order="C")
        raw = array.reshape(-1).view(np.uint8)
        data.write(raw.data)
        table.add(name.encode(), _entry(array.shape, offset, raw))
        offset += raw.size
    table.finish()


def bundle_files(prefix: Path) -> tuple[Path, Path]:
    """Return the names of a checkpoint's index and of its one data file."""
    return prefix.with_name(f"{prefix.name}.index"), prefix.with_name(f"{prefix.name}.data-00000-of-00001")


def _entry(shape: tuple[int, ...], offset: int, raw: npt.NDArray[np.uint8]) -> bytes:
    """Encode a BundleEntryProto; field 3, the data file's number, is 0 and so absent."""
    dimensions = b"".join(embedded(2, integer(1, size)) for size in shape)
    return (
        integer(1, _FLOAT32)
        + embedded(2, dimensions)
        + integer(4, offset)
        + integer(5, raw.size)
        + fixed32(6, masked_crc32c(raw))
    )
