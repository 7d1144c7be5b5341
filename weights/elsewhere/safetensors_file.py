"""Reads `.safetensors`: the length of a JSON header, the header, then the bytes of all tensors without a gap.

Not by the safetensors library: with NumPy it has no bfloat16, and of two tensors with one name it hides the first.
"""

import json
import math
from collections.abc import Mapping
from pathlib import Path
from types import MappingProxyType
from typing import Any, NamedTuple, Self

import numpy as np
import numpy.typing as npt

from resnet_ref.errors import CheckpointError
from resnet_ref.weights.checkpoint.dtypes import DType, to_array
from resnet_ref.weights.checkpoint.source import AGAIN, Source
from resnet_ref.weights.checkpoint.variable import Variable
from resnet_ref.weights.checkpoint.wire import DamagedError, decoding
from resnet_ref.weights.elsewhere.elements import element_of
from resnet_ref.weights.elsewhere.opening import known, require_file
from resnet_ref.weights.named_arrays import File

MOST_HEADER_BYTES = 1 << 20  # resnet152's is a tenth of it
MOST_AXES = 32
_METADATA = "__metadata__"
_NAMES = {
    "F64": "float64",
    "F32": "float32",
    "F16": "float16",
    "BF16": "bfloat16",
    "I64": "int64",
    "I32": "int32",
    "I16": "int16",
    "I8": "int8",
    "U64": "uint64",
    "U32": "uint32",
    "U16": "uint16",
    "U8": "uint8",
    "BOOL": "bool",
}


class _Place(NamedTuple):
    """Where a tensor's bytes lie, counted from the end of the header."""

    begin: int
    end: int
    element: DType


class SafetensorsFile:
    """An open file of safetensors; see weights.named_arrays. The format has no checksum: damage to values goes unseen.

    metadata: what the header says beside its tensors, text by name. Raises CheckpointError unless the header describes
    every byte after it, once.
    """

    kind: str = "safetensors"
    variables: Mapping[str, Variable]

    def __init__(self, path: Path) -> None:
        self.path = path
        require_file(path)
        self._source = Source(path, str(path))
        try:
            with decoding(str(path)):
                header, self._start = _header(self._source)
                places, variables = _described(header, self._source.size - self._start)
                self.metadata = _metadata(header)
        except BaseException:
            self._source.close()
            raise
        self._places = places
        self.variables = MappingProxyType(variables)
        self.files = (File(str(path), self._source.size),)

    def read(self, name: str) -> npt.NDArray[Any]:
        """A tensor's values as a new array of the dtype and shape that `variables` says."""
        variable = known(self, name)
        begin, end, kind = self._places[name]
        assert kind.stored is not None
        raw = np.empty(end - begin, np.uint8)
        self._source.read_into(raw, self._start + begin, repr(name))
        with decoding(f"{self.path}: {name!r}"):
            return np.asarray(to_array(raw.view(kind.stored), kind)).reshape(variable.shape)

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self._source.close()


def _metadata(header: Mapping[str, Any]) -> dict[str, str]:
    found = header.get(_METADATA, {})
    if not isinstance(found, dict) or not all(isinstance(value, str) for value in found.values()):
        raise DamagedError("its metadata are not text by name")
    return found


def _header(source: Source) -> tuple[dict[str, Any], int]:
    """The parsed header and where it ends."""
    size = int.from_bytes(source.read(0, 8, "the length of the header"), "little")
    if size > min(MOST_HEADER_BYTES, source.size - 8):
        raise CheckpointError(
            f"{source.name}: expected safetensors, which begin with the length of their header, got a length of {size} "
            f"in a file of {source.size} bytes (the most is {MOST_HEADER_BYTES}). {AGAIN}"
        )
    try:
        text = source.read(8, size, "the header").decode()
        parsed = json.loads(text, object_pairs_hook=_once, parse_constant=_no_constant)
    except (ValueError, RecursionError) as error:  # among them Unicode's errors, JSON's, and integers without end
        raise DamagedError(f"its header is no JSON: {str(error)[:100]}") from None
    if not isinstance(parsed, dict):
        raise DamagedError("its header is JSON, but no object")
    return parsed, 8 + size


def _once(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    found: dict[str, Any] = {}
    for name, value in pairs:
        if name in found:
            raise DamagedError(f"its header has {name[:100]!r} twice")
        found[name] = value
    return found


def _no_constant(name: str) -> None:
    raise DamagedError(f"its header has the number {name}")


def _described(header: dict[str, Any], size: int) -> tuple[dict[str, _Place], dict[str, Variable]]:
    """Every tensor's place among the `size` bytes, and what it is."""
    places, variables = {}, {}
    for name, entry in header.items():
        if name != _METADATA:
            places[name], variables[name] = _tensor(name, entry)
    at = 0
    for name, place in sorted(places.items(), key=lambda item: item[1][:2]):
        if place.begin != at:
            raise DamagedError(f"{name!r} begins at byte {place.begin}, expected {at}, where the one before it ends")
        at = place.end
    if at != size:
        raise DamagedError(f"its tensors have {at} bytes, the file has {size} for them")
    return places, dict(sorted(variables.items()))


def _tensor(name: str, entry: Any) -> tuple[_Place, Variable]:
    if not isinstance(entry, dict) or set(entry) != {"dtype", "shape", "data_offsets"}:
        raise DamagedError(f"{name!r} should have dtype, shape and data_offsets")
    stored, shape, offsets = entry["dtype"], entry["shape"], entry["data_offsets"]
    if not isinstance(stored, str):
        raise DamagedError(f"the dtype of {name!r} is no text")
    if not _counts(shape) or len(shape) > MOST_AXES:
        raise DamagedError(f"the shape of {name!r} is no list of at most {MOST_AXES} sizes")
    if not _counts(offsets) or len(offsets) != 2 or offsets[0] > offsets[1]:
        raise DamagedError(f"the data_offsets of {name!r} are not where it begins and ends")
    kind = element_of(_NAMES.get(stored, stored[:20]))
    if kind.stored is not None and (bytes_ := math.prod(shape) * kind.stored.itemsize) != offsets[1] - offsets[0]:
        raise DamagedError(f"{name!r} has {offsets[1] - offsets[0]} bytes, expected {bytes_} for its shape")
    return _Place(offsets[0], offsets[1], kind), Variable.of(kind, tuple(shape))


def _counts(value: Any) -> bool:
    """Whole numbers from 0 that fit in 63 bits; true is none."""
    return isinstance(value, list) and all(type(n) is int and 0 <= n < 1 << 63 for n in value)
