"""What the writers of checkpoints write is TensorFlow's own format, byte for byte, and our reader's."""

import io
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import checkpoint_files
import numpy as np
import pytest

from resnet_ref import WeightsError
from resnet_ref.weights.checkpoint import open_checkpoint
from resnet_ref.weights.checkpoint.bundle_writer import bundle_files, check_names, write_bundle
from resnet_ref.weights.checkpoint.encode import embedded, fixed32, integer, varint
from resnet_ref.weights.checkpoint.source import Source
from resnet_ref.weights.checkpoint.table import Table
from resnet_ref.weights.checkpoint.table_writer import TableWriter, _Block

Arrays = Mapping[str, Any]


def holds(prefix: Path, weights: Arrays) -> None:
    """Assert that a checkpoint has exactly these variables, with these bits."""
    with open_checkpoint(prefix) as checkpoint:
        assert sorted(checkpoint.variables) == sorted(weights)
        for name, array in weights.items():
            read = checkpoint.read(name)
            assert (read.dtype, read.shape) == (np.float32, np.shape(array))
            assert read.tobytes() == np.asarray(array).tobytes()


def bundle(prefix: Path, arrays: Arrays) -> list[bytes]:
    """Write a checkpoint of any arrays; return what its index and its data file hold."""
    files = bundle_files(prefix)
    with files[0].open("wb") as index, files[1].open("wb") as data:
        write_bundle(index, data, arrays)
    return [file.read_bytes() for file in files]


def test_a_small_table_has_the_bytes_worked_out_by_hand() -> None:
    (writer := TableWriter(file := io.BytesIO())).add(b"", b"H")
    writer.add(b"ab", b"12")
    writer.add(b"abd", b"3")
    writer.finish()

    def ended(data: str) -> bytes:  # no compression, then the checksum of data and that
        raw = bytes.fromhex(data) + b"\0"
        return raw + checkpoint_files.masked(raw).to_bytes(4, "little")

    # shared, unshared, size, key, value; then where to start without sharing, and how many such places
    block = ended("000001 48000202 6162 3132020101 64 3300000000 01000000")
    meta = ended("00000000 01000000")
    # one block: "b", the shortest key from "abd" on, says that it begins at 0 and has 24 bytes
    index = ended("000102 62 001800000000 01000000")
    footer = bytes.fromhex("1d082a0e") + b"\0" * 36 + bytes.fromhex("57fb808b247547db")
    assert file.getvalue() == block + meta + index + footer


def test_every_16th_key_is_whole_and_every_block_ends_at_256_kib(tmp_path: Path) -> None:
    """50,000 entries, some with values of more than a block, come back through the reader and by each key."""
    entries = {b"scope/unit_%05d/x" % n: bytes([n % 251]) * (n % 37) for n in range(50_000)}
    entries[b"scope/unit_20000/x"] = b"\7" * 700_000
    with (tmp_path / "t").open("wb") as file:
        writer = TableWriter(file)
        for key, value in entries.items():
            writer.add(key, value)
        writer.finish()
    raw = (tmp_path / "t").read_bytes()
    assert raw.count(b"\0\x12") >= 50_000 // 16  # shared 0, unshared 18
    with Source(tmp_path / "t", "t") as source:
        table = Table(source)
        sizes = [size for _, size in table._handles]
        assert len(sizes) == 5
        assert all(size >= 1 << 18 for size in sizes[:-1])
        assert {key: bytes(value) for key, value in table.items()} == entries
        for key in (b"scope/unit_00000/x", b"scope/unit_20000/x", b"scope/unit_49999/x"):
            assert bytes(table.get(key) or b"") == entries[key]


def test_a_table_refuses_keys_that_do_not_ascend() -> None:
    (writer := TableWriter(io.BytesIO())).add(b"b", b"")
    for key in (b"b", b"a"):
        with pytest.raises(ValueError, match="keys ascend"):
            writer.add(key, b"")


def test_fields_are_encoded_as_protocol_buffers_say() -> None:
    assert [varint(n).hex() for n in (0, 127, 128, 300, -1)] == ["00", "7f", "8001", "ac02", "ff" * 9 + "01"]
    assert integer(1, 150).hex() == "089601"
    assert (integer(3, 0), fixed32(6, 0), embedded(2, b"").hex()) == (b"", b"", "1200")
    assert fixed32(6, 0x01020304).hex() == "3504030201"


def _filling(size: int) -> dict[str, Any]:
    """Variables without elements, that make a first block of `size` bytes; then one that is two letters further."""
    block = _Block(16)
    block.add(b"", bytes(6))
    names = []
    while block.size < size - 120:
        names.append(f"a{len(names):07d}" + "x" * 80)
        block.add(names[-1].encode(), bytes(11))
    names.append("b" + "x" * (size - block.size - 11 - 4))  # 11 of the value, 3 of the lengths, and the b
    block.add(names[-1].encode(), bytes(11))
    assert block.size == size
    return {name: np.zeros(0, np.float32) for name in (*names, "d")}


def _bundles() -> dict[str, dict[str, Any]]:
    rng = np.random.default_rng(5)
    letters = list("az09_/.-Z>")
    names = {"a" + "".join(rng.choice(letters, int(size))) for size in rng.integers(0, 300, 4000)}
    units = [f"net/block{n // 100}/unit_{n % 100}/conv{c}/{end}" for n in range(2000) for c in "123" for end in "wb"]
    return {
        "one scalar": {"a": np.float32(1.5)},
        "shapes without elements, names in no order": {
            "b": np.zeros((0, 3), np.float32),
            "a/w": np.ones((2, 3), np.float32),
            "A": np.float32(-0.0),
            "a": np.zeros((1, 1, 1, 0), np.float32),
        },
        "12 MB in one variable": {"w": rng.normal(size=(3000, 1000)).astype(np.float32), "v": np.float32(np.inf)},
        "not contiguous": {"t": np.arange(60, dtype=np.float32).reshape(3, 4, 5).transpose(2, 0, 1)[::2]},
        "12,000 variables": {name: rng.normal(size=2).astype(np.float32) for name in units},
        "a block of exactly 256 KiB": _filling(1 << 18),
        "a block that lacks a byte of that": _filling((1 << 18) - 1),
        "names of any length": {name: np.float32(n) for n, name in enumerate(names)},
    }


BUNDLES = _bundles()


@pytest.mark.oracle
@pytest.mark.parametrize("what", BUNDLES)
def test_both_files_are_tensorflows_own_byte_for_byte(tmp_path: Path, what: str) -> None:
    tf = checkpoint_files.tensorflow()
    values = dict(sorted(BUNDLES[what].items()))  # as a Saver gives them to this operation
    (tmp_path / "tf").mkdir()
    there = str(tmp_path / "tf" / "a")
    tensors = [np.ascontiguousarray(v) if np.ndim(v) else v for v in values.values()]
    tf.raw_ops.SaveV2(prefix=there, tensor_names=list(values), shape_and_slices=[""] * len(values), tensors=tensors)
    theirs = [Path(there + end).read_bytes() for end in (".index", ".data-00000-of-00001")]
    assert bundle(tmp_path / "a", BUNDLES[what]) == theirs


@pytest.mark.parametrize("what", BUNDLES)
def test_our_reader_finds_the_same_bits(tmp_path: Path, what: str) -> None:
    bundle(tmp_path / "a", BUNDLES[what])
    holds(tmp_path / "a", BUNDLES[what])


@pytest.mark.oracle
@pytest.mark.parametrize(
    "name", ["a", ".a/b", "a\\b>c-d_e", "9", "_a", "/a", "-a", "é/a", "a b", "a\n", "", "a:0", "a\0b", "日/w"]
)
def test_a_name_is_refused_exactly_where_no_variable_of_tensorflow_can_have_it(name: str) -> None:
    tf = checkpoint_files.tensorflow()
    try:
        with tf.Graph().as_default():
            theirs = tf.compat.v1.get_variable(name, [2]).op.name == name
    except ValueError:
        theirs = False
    if theirs:
        check_names([name])
    else:
        with pytest.raises(WeightsError, match="TensorFlow gives no variable the name"):
            check_names(["fine", name])
