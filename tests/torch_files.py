"""Files of torch.save and of safetensors for the tests, put together byte by byte without either library."""

import json
import os
import struct
import zipfile
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

import pytest
from numpy.typing import NDArray

from resnet_ref.errors import CheckpointError

Outcome = dict[str, NDArray[Any] | str]
PROTO, STOP = b"\x80\x02", b"."
ORDERED = b"ccollections\nOrderedDict\n)R"


def text(value: str | bytes) -> bytes:
    data = value.encode() if isinstance(value, str) else value
    return b"X" + struct.pack("<I", len(data)) + data


def number(value: int) -> bytes:
    return b"\x8a\x08" + struct.pack("<q", value)


def sequence(values: Iterable[int]) -> bytes:
    return b"(" + b"".join(map(number, values)) + b"t"


def storage(key: str, length: int, kind: str = "FloatStorage") -> bytes:
    return b"(" + text("storage") + f"ctorch\n{kind}\n".encode() + text(key) + text("cpu") + number(length) + b"tQ"


def tensor(
    key: str,
    length: int,
    shape: Iterable[int],
    strides: Iterable[int],
    offset: int = 0,
    kind: str = "FloatStorage",
    more: bytes = b"",
) -> bytes:
    """The opcodes of a tensor: the view of `length` elements in data/KEY."""
    arguments = storage(key, length, kind) + number(offset) + sequence(shape) + sequence(strides) + b"\x89" + ORDERED
    return b"ctorch._utils\n_rebuild_tensor_v2\n(" + arguments + more + b"tR"


def state_dict(entries: Mapping[str, bytes]) -> bytes:
    """The pickle of an OrderedDict, from name -> opcodes of the value."""
    return PROTO + ORDERED + b"(" + b"".join(text(name) + value for name, value in entries.items()) + b"u" + STOP


def torch_zip(
    path: Path, pickle: bytes, records: Mapping[str, bytes] | None = None, root: str = "archive/", **how: Any
) -> Path:
    """A zip file as torch.save arranges it; how: of zipfile.ZipFile."""
    with zipfile.ZipFile(path, "w", **how) as archive:
        archive.writestr(f"{root}data.pkl", pickle)
        for name, data in (records or {}).items():
            archive.writestr(f"{root}{name}", data)
    return path


def one(path: Path, *view: Any, length: int = 6, **how: Any) -> Path:
    """A zip file with the one tensor "a" in a storage of 6 floats: 0, 1, ..."""
    data = struct.pack("<6f", *range(6))
    return torch_zip(path, state_dict({"a": tensor("0", length, *view, **how)}), {"data/0": data})


def safetensors(path: Path, header: Any, data: bytes = b"") -> Path:
    """header: as JSON will have it, or its bytes."""
    text = header if isinstance(header, bytes) else json.dumps(header).encode()
    path.write_bytes(struct.pack("<Q", len(text)) + text + data)
    return path


def entry(dtype: Any, shape: Any, *offsets: Any) -> dict[str, Any]:
    return {"dtype": dtype, "shape": shape, "data_offsets": list(offsets)}


def outcome(reader: Any, path: Path) -> Outcome:
    """Every array of the file, or the error it got; the error of opening under the name "". All errors are one line."""
    found: Outcome = {}
    try:
        with reader(path) as arrays:
            for name in arrays.variables:
                try:
                    found[name] = arrays.read(name)
                except CheckpointError as error:
                    found[name] = str(error)
    except CheckpointError as error:
        found[""] = str(error)
    for value in found.values():
        assert not isinstance(value, str) or (value.startswith(str(path)) and "\n" not in value)
    return found


def failure(reader: Any, path: Path) -> str:
    """The one error of a file."""
    errors = [value for value in outcome(reader, path).values() if isinstance(value, str)]
    assert len(errors) == 1, errors
    return errors[0]


def refuse_what_is_no_file(reader: Any, folder: Path) -> None:
    """A folder, a FIFO, which would block who opens it, nothing, and what cannot be a path."""
    os.mkfifo(folder / "fifo")
    assert failure(reader, folder).endswith("is a directory; name the file in it.")
    assert failure(reader, folder / "fifo").endswith("is no plain file; copy its content to one.")
    assert "cannot be opened: No such file" in failure(reader, folder / "none")
    with pytest.raises(
        CheckpointError, match=r"cannot be opened: (embedded null byte|\w+: embedded null character in path)"
    ):
        reader(Path("a\0"))
