"""Refusing a checkpoint that claims or unfolds to gigabytes takes under 200 MB of memory, measured in a process."""

import gzip
import json
import os
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path

import needs
import pytest
from checkpoint_files import MAGIC, entry, masked, message, shape, table, v1_table, v2, varint, with_index

pytestmark = needs.PROC
MOST_BYTES = 200e6
TERABYTE = 1 << 40
PROGRAM = """
import json, resource, sys
from resnet_ref.errors import CheckpointError
from resnet_ref.weights.checkpoint import open_checkpoint

def peak():  # KiB of this process alone: ru_maxrss begins with that of the one that started it
    return int(next(line.split()[1] for line in open("/proc/self/status") if line.startswith("VmHWM")))

before, said = peak(), ""
try:
    with open_checkpoint(sys.argv[1]) as checkpoint:
        for name in checkpoint.variables:
            checkpoint.read(name)
except CheckpointError as error:
    said = str(error)
print(json.dumps({"bytes": 1024 * (peak() - before), "said": said}))
"""


def framed(data: bytes) -> bytes:
    """Encode a block of entries that are encoded already."""
    raw = data + b"\0\0\0\0\1\0\0\0" + b"\0"
    return raw + masked(raw).to_bytes(4, "little")


def shared_keys(count: int) -> bytes:
    """Encode entries of seven bytes with keys of 4096."""
    first = b"\0" + varint(4093) + b"\0" + b"k" * 4093
    numbers = (k.to_bytes(3, "big") for k in range(count))
    return first + b"".join(varint(4093) + b"\3\0" + number for number in numbers)


def short_keys(count: int) -> bytes:
    """Encode entries of seven bytes that share nothing."""
    return b"".join(b"\0\4\0" + b"k" + k.to_bytes(3, "big") for k in range(count))


def one_block(data: bytes) -> bytes:
    made = framed(data)
    return with_index(made, [(b"\xff", (0, len(made) - 5))])


def as_index(data: bytes) -> bytes:
    index = framed(data)
    return index + (b"\0\0\0" + varint(len(index) - 5)).ljust(40, b"\0") + MAGIC


def small(content: bytes) -> Callable[[Path], Path]:
    def make(folder: Path) -> Path:
        (folder / "m").write_bytes(content)
        return folder / "m"

    return make


def v2_index(content: bytes) -> Callable[[Path], Path]:
    def make(folder: Path) -> Path:
        (folder / "m.index").write_bytes(content)
        (folder / "m.data-00000-of-00001").write_bytes(bytes(1 << 20))
        return folder / "m"

    return make


def sparse_v1(size: int) -> Callable[[Path], Path]:
    """A file of one block of `size` zeros that take no disk; the checksum is of something else."""

    def make(folder: Path) -> Path:
        index = with_index(b"", [(b"\xff", (0, size))])
        start = size + 5
        at = len(index) - 48
        with (folder / "m").open("wb") as file:
            file.seek(start)
            file.write(index[:at] + (b"\0\0" + varint(start) + varint(at - 5)).ljust(40, b"\0") + index[-8:])
        return folder / "m"

    return make


def sparse_v2(size: int) -> Callable[[Path], Path]:
    def make(folder: Path) -> Path:
        path = v2(folder / "m", {b"x": entry(b"", shape(size // 4), size=size)}, b"")
        os.truncate(folder / "m.data-00000-of-00001", size)
        return path

    return make


def sparse_graph(folder: Path) -> Path:
    made = message((1, 7), (5, TERABYTE))
    path = v2(folder / "m", {b"_CHECKPOINTABLE_OBJECT_GRAPH": made}, b"")
    os.truncate(folder / "m.data-00000-of-00001", TERABYTE)
    return path


def archive(blocks: Iterator[bytes]) -> Callable[[Path], Path]:
    def make(folder: Path) -> Path:
        path = folder / "m.tar.gz"
        path.write_bytes(b"".join(blocks))
        return path

    return make


def tar_header(size: int, kind: bytes, more: bool = False) -> bytes:
    raw = bytearray(512)
    raw[:7], raw[124:136], raw[156:157], raw[257:263] = b"m.index", b"%011o\0" % size, kind, b"ustar\0"
    raw[482] = more
    raw[148:156] = b" " * 8
    raw[148:156] = b"%06o\0 " % sum(raw)
    return bytes(raw)


def bomb() -> Iterator[bytes]:
    yield gzip.compress(tar_header(1 << 32, b"0"))
    yield gzip.compress(bytes(1 << 26)) * 64


def long_headers() -> Iterator[bytes]:
    """Ten thousand members, each with a pax header of 60 KB."""
    pax = b"60000 comment=" + b"x" * (60000 - 15) + b"\n"
    pair = tar_header(len(pax), b"x") + pax + bytes(-len(pax) % 512) + tar_header(0, b"0")
    yield gzip.compress(pair * 100) * 100


def sparse_map() -> Iterator[bytes]:
    goes_on = bytearray(b"00000000001\0" * 42 + bytes(8))
    goes_on[504] = 1
    yield gzip.compress(tar_header(0, b"S", more=True))
    yield gzip.compress(bytes(goes_on) * (1 << 15)) * 64


CASES: dict[str, tuple[Callable[[Path], Path], str]] = {
    "keys, V1": (small(one_block(shared_keys(60000))), "keys of more than 16777216 bytes"),
    "keys, V2": (v2_index(one_block(shared_keys(60000))), "keys of more than 16777216 bytes"),
    "keys, index": (small(as_index(shared_keys(60000))), "keys of more than 16777216"),
    "entries, V1": (small(one_block(short_keys(500000))), "more than 65536 entries"),
    "entries, V2": (v2_index(one_block(b"\0\0\2\x08\1" + short_keys(500000))), "more than 65536 entries"),
    "fields": (small(table({b"": message((1, b"\x0a\0" * 1000000))})), "a message of more than 131072 fields"),
    "slices, V1": (
        small(v1_table({f"x{k}": (b"", 1, [b""] * 60000) for k in range(9)}, {})),
        "it has more than 65536 tensors and slices",
    ),
    "slices, V2": (
        v2_index(table({b"": message((1, 1))} | {b"x%d" % k: b"\x3a\0" * 60000 for k in range(9)})),
        "more than 65536 slices by now",
    ),
    "terabyte, block": (sparse_v1(TERABYTE), "claims 1099511627776 bytes; at most 1073741824 were expected"),
    "gigabyte, block": (sparse_v1(1 << 30), "the table block at byte 0 has checksum"),
    "terabyte, V2": (sparse_v2(TERABYTE), "'x' takes 1099511627776 bytes; at most 2147483648 are read"),
    "gigabytes, V2": (sparse_v2(1 << 31), "variable 'x' has checksum"),
    "terabyte, graph": (sparse_graph, "it has 1099511627776 bytes; at most 16777216 were expected"),
    "bomb": (archive(bomb()), "unpacks to more than "),
    "long headers": (archive(long_headers()), "unpacks to more than "),
    "sparse map": (archive(sparse_map()), "unpacks to more than "),
}


@pytest.mark.parametrize("case", CASES)
def test_a_refusal_takes_under_200_mb(tmp_path: Path, case: str) -> None:
    make, expected = CASES[case]
    path = make(tmp_path)
    done = subprocess.run(
        [sys.executable, "-c", PROGRAM, str(path)],
        capture_output=True,
        text=True,
        timeout=600,
        env={**os.environ, "TMPDIR": str(tmp_path), "PYTHONPATH": os.pathsep.join(filter(None, sys.path))},
    )
    assert done.returncode == 0, done.stderr
    got = json.loads(done.stdout)
    assert expected in got["said"]
    assert got["said"].startswith(str(tmp_path))
    assert got["bytes"] < MOST_BYTES
