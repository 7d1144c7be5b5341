"""Whole checkpoints as one run of bytes: a byte of flags, the first file's length, the first file, the second."""

import atexit
import os
import shutil
import tempfile
from collections.abc import Mapping
from functools import cache
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
from checkpoint_files import entry, message, piece, shape, table, v1_table, varint

from fuzz.checksums import checksums
from fuzz.guard import ours
from resnet_ref.weights.checkpoint import Checkpoint, Variable, open_checkpoint

CHECKED = 1
VALUES: Mapping[str, npt.NDArray[Any]] = {
    "a/gamma": np.arange(5, dtype=np.float32),
    "a/weights": np.arange(12, dtype=np.float64).reshape(2, 3, 2),
    "global_step": np.array(-3, np.int64),
    "h": np.array([1, 2], np.float16),
    "p": np.arange(6, dtype=np.float32),
}
_TYPES = {"float32": (1, 5), "float64": (2, 6), "int64": (9, 10), "float16": (19, 13)}
_VARINTS = {"h": np.uint16, "global_step": np.uint64}
P_KEYS = {(0, 2): b"\0p\0\1\1\1\x80\x82", (2, 4): b"\0p\0\1\1\1\x82\x84"}


@cache
def folder() -> Path:
    """An empty folder, in memory unless TMPDIR is set: a fuzzer writes thousands of files a second."""
    memory = "/dev/shm" if "TMPDIR" not in os.environ and os.access("/dev/shm", os.W_OK) else None
    path = Path(tempfile.mkdtemp(prefix="fuzz-", dir=memory))
    atexit.register(shutil.rmtree, path, ignore_errors=True)
    return path


def joined(first: bytes, second: bytes, flags: int) -> bytes:
    return bytes([flags]) + len(first).to_bytes(4, "little") + first + second


def parted(data: bytes) -> tuple[int, bytes, bytes]:
    flags, rest = data[0] if data else 0, data[5:]
    at = int.from_bytes(data[1:5], "little") % (len(rest) + 1)
    return flags, rest[:at], rest[at:]


def v1() -> bytes:
    """A V1 checkpoint of VALUES, "p" in two slices."""
    tensors, values = {}, {}
    for name, array in VALUES.items():
        number, field = _TYPES[array.dtype.name]
        parts = P_KEYS if name == "p" else {(): _whole_key(name, array.ndim)}
        boxes = []
        for extent, key in parts.items():
            part = array[extent[0] : extent[0] + extent[1]] if extent else array
            boxes.append(piece(extent) if extent else message(*((1, b"") for _ in array.shape)))
            raw = _packed(name, part)
            values[key] = message((1, name.encode()), (2, boxes[-1]), (3, message((field, raw))))
        tensors[name] = (shape(*array.shape), number, boxes)
    return v1_table(tensors, dict(sorted(values.items())))


def v2(
    extra: Mapping[bytes, tuple[bytes, bytes]] | None = None, rename: Mapping[str, str] | None = None
) -> tuple[bytes, bytes]:
    """A V2 checkpoint of VALUES: index and data. extra: entries made by the caller, and their bytes at the front."""
    data = b"".join(raw for _, raw in (extra or {}).values())
    entries = {key: made for key, (made, _) in (extra or {}).items()}
    for name, array in VALUES.items():
        number = _TYPES[array.dtype.name][0]
        key = (rename or {}).get(name, name).encode()
        if name == "p" and not rename:
            for extent, slice_key in P_KEYS.items():
                raw = array[extent[0] : extent[0] + extent[1]].tobytes()
                entries[slice_key] = entry(raw, shape(extent[1]), offset=len(data))
                data += raw
            entries[key] = message((1, 1), (2, shape(6)), *((7, piece(extent)) for extent in P_KEYS))
            continue
        entries[key] = entry(array.tobytes(), shape(*array.shape), number, len(data))
        data += array.tobytes()
    return table({b"": message((1, 1))} | dict(sorted(entries.items()))), data


def read_all(path: Path, checked: bool) -> None:
    """Open the checkpoint and read every variable; with checksums, none may have other numbers than VALUES."""

    def read() -> None:
        with open_checkpoint(path) as checkpoint:
            for name, variable in checkpoint.variables.items():
                ours(lambda name=name, variable=variable: _read_one(checkpoint, name, variable, checked))

    with checksums(checked):
        ours(read)


def _read_one(checkpoint: Checkpoint, name: str, variable: Variable, checked: bool) -> None:
    array = checkpoint.read(name)
    assert (array.dtype, array.shape) == (variable.dtype, variable.shape)
    if checked:
        np.testing.assert_array_equal(array, VALUES[name], strict=True)


def _whole_key(name: str, rank: int) -> bytes:
    return b"\0" + name.encode() + b"\0\1" + (b"\1" + bytes([rank]) if rank else b"\0") + b"\x80\x7f" * rank


def _packed(name: str, array: npt.NDArray[Any]) -> bytes:
    if name not in _VARINTS:
        return array.tobytes()
    numbers = array.reshape(-1).view(_VARINTS[name]).tolist()
    return b"".join(varint(number) for number in numbers)
