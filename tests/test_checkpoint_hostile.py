"""A checkpoint made to do harm gets one line that says where, what and what to do, and little time and memory.

test_checkpoint_damage.py has what damage does; here somebody means it.
"""

from collections.abc import Mapping
from pathlib import Path

import numpy as np
import pytest
from checkpoint_files import (
    MAGIC,
    block,
    entry,
    message,
    piece,
    shape,
    table,
    v1_scalar,
    v1_table,
    v2,
    v2_scalar,
    varint,
    with_index,
)

from resnet_ref.errors import CheckpointError
from resnet_ref.weights.checkpoint import open_checkpoint

AGAIN = "The file is damaged or incomplete: copy or download it again."
FOUR = np.arange(4, dtype=np.float32).tobytes()
FULL = message((1, b""))  # a slice of one dimension, in full
TERABYTE = 1 << 40


def refusal(path: Path) -> str:
    """Return the one line with which opening or reading the checkpoint fails."""
    with pytest.raises(CheckpointError) as caught, open_checkpoint(path) as checkpoint:  # noqa: PT012
        for name in checkpoint.variables:
            checkpoint.read(name)
    message = str(caught.value)
    assert "\n" not in message
    return message


def v1_of(path: Path, dims: bytes, parts: list[bytes], values: Mapping[bytes, bytes] | None = None) -> Path:
    path.write_bytes(v1_table({"x": (dims, 1, parts)}, values or {}))
    return path


# Shapes, counts and lists


@pytest.mark.parametrize(
    ("dims", "expected"),
    [
        (shape(2**63), "its shape (-9223372036854775808,) has a negative size"),
        (shape(-1), "its shape (-1,) has a negative size"),
        (shape(2**32, 2**32), "its shape (4294967296, 4294967296) is absurdly large"),
        (shape(0, 2**62), "its shape (0, 4611686018427387904) is absurdly large"),
        (shape(TERABYTE), "the shape (1099511627776,) of 'x' has more elements than the file has bytes"),
        (shape(*[1] * 65), "it claims 65 dimensions; at most 64 can be held"),
        (message((3, 1)), "its shape is unknown"),
    ],
)
def test_a_v1_shape_that_no_array_could_have_is_named(tmp_path: Path, dims: bytes, expected: str) -> None:
    path = v1_of(tmp_path / "m", dims, [])
    assert refusal(path) == f"{path}: its list of tensors: {expected}. {AGAIN}"


def test_a_v2_count_of_data_files_that_is_negative_is_named(tmp_path: Path) -> None:
    path = v2(tmp_path / "m", {}, b"", message((1, -1)))
    assert refusal(path) == f"{path}.index: its header: it claims -1 data files. {AGAIN}"


def test_a_variable_listed_twice_is_refused(tmp_path: Path) -> None:
    """V1: once with each list, or twice under one key, where readers disagree on which counts; V2: keys ascend."""
    path = tmp_path / "m"
    tensor = message((1, b"x"), (2, b""), (3, 1), (4, b""))
    value = message((2, message((1, b"x"), (2, b""), (3, message((5, FOUR[:4]))))))
    path.write_bytes(table({b"": message((1, message((1, tensor), (1, tensor)))), b"\0x\0\1\0": value}))
    assert refusal(path) == f"{path}: 'x': its 2 slices hold 2 elements, its shape () 1. {AGAIN}"
    data = block([(b"", message((1, message((1, tensor))))), (b"\0x\0\1\0", value), (b"\0x\0\1\0", value)])
    path.write_bytes(with_index(data, [(b"y", (0, len(data) - 5))]))
    assert refusal(path) == f"{path}: block 0: its keys are not in ascending order. {AGAIN}"
    twice = entry(FOUR, shape(4))
    data = block([(b"", message((1, 1))), (b"x", twice), (b"x", twice)])
    v2_scalar(tmp_path / "n", "x", 1).with_name("n.index").write_bytes(with_index(data, [(b"y", (0, len(data) - 5))]))
    assert refusal(tmp_path / "n") == f"{tmp_path}/n.index: block 0: its keys are not in ascending order. {AGAIN}"


def test_slices_of_nothing_are_refused(tmp_path: Path) -> None:
    """Any number of them would fit beside those that cover the variable, and each costs a block."""
    path = v1_of(tmp_path / "m", shape(4), [piece((0, 4)), *[piece((4, 0))] * 100])
    assert refusal(path) == f"{path}: 'x': of its 101 slices one holds nothing. {AGAIN}"


def test_a_v2_slice_that_is_not_there_is_named(tmp_path: Path) -> None:
    path = v2(tmp_path / "m", {b"x": message((1, 1), (2, shape(4)), (7, piece((0, 4))))}, FOUR)
    assert refusal(path) == f"{path}.index: 'x': its slice from (0,) is missing. {AGAIN}"


def test_v2_variables_may_not_share_bytes(tmp_path: Path) -> None:
    """Thousands of large ones would lie in one small file."""
    path = v2(tmp_path / "m", {name: entry(FOUR, shape(4)) for name in (b"x", b"y")}, FOUR)
    assert refusal(path) == (
        f"{path}.index: its variables claim 32 bytes of {path}.data-00000-of-00001, which has only 16. {AGAIN}"
    )


def test_a_set_of_no_shards_is_refused(tmp_path: Path) -> None:
    path = tmp_path / "m-00000-of-00000"
    path.write_bytes(v1_scalar("x", 1))
    assert refusal(path) == f"{path}: expected a number of shards in its name, got 0. Give it its own name back."


# Blocks and their handles


def test_blocks_may_not_overlap_or_reach_into_the_index(tmp_path: Path) -> None:
    """So the work is bounded by the file, however many handles there are: each byte is in one block at most."""
    path = tmp_path / "m"
    data = block([(b"", message((1, 1)))])
    size = len(data) - 5
    for handles, expected in (
        ([(b"%05d" % k, (0, size)) for k in range(9999)], "its blocks are not in ascending order: one at byte 0"),
        ([(b"a", (0, size)), (b"b", (4, size - 4))], f"one at byte 4, the one before ends at byte {len(data)}"),
        ([(b"a", (0, len(data) + 1))], f"ends at byte {len(data) + 6}, but the index begins at byte {len(data)}"),
        ([(b"a", (len(data), 24))], f"ends at byte {len(data) + 29}, but the index begins at byte {len(data)}"),
    ):
        path.write_bytes(with_index(data, handles))
        assert expected in refusal(path)
        assert refusal(path).startswith(f"{path}: its index: ")


def test_an_index_may_not_be_its_own_block_or_lie_beyond_the_file(tmp_path: Path) -> None:
    path = tmp_path / "m"
    itself = block([(b"a", b"\0\x12")])  # its handle: from byte 0 on, all of itself
    footer = (b"\0\0" + varint(0) + varint(len(itself) - 5)).ljust(40, b"\0") + MAGIC
    path.write_bytes(itself + footer)
    assert refusal(path) == (
        f"{path}: its index: its last block ends at byte 23, but the index begins at byte 0. {AGAIN}"
    )
    for offset, size, expected in (
        (2**63, 4, "the table block at byte 9223372036854775808 should be 4 bytes"),
        (2**64 - 1, 2**64 - 1, "claims 18446744073709551615 bytes; at most 4194304 were expected"),
        (0, TERABYTE, "claims 1099511627776 bytes; at most 4194304 were expected"),
    ):
        path.write_bytes(itself + (b"\0\0" + varint(offset) + varint(size)).ljust(40, b"\0") + MAGIC)
        assert expected in refusal(path)


def test_a_block_that_goes_on_where_its_writer_would_have_ended_it_is_refused(tmp_path: Path) -> None:
    """Else each of its variables would cost all of it."""
    path = tmp_path / "m"
    values = {b"%d" % k: bytes(1 << 20) for k in range(1, 8)}
    path.write_bytes(table({b"": message((1, b""))} | values))
    assert "block 0: a block goes on after 4194333 bytes; its last entry begins before 4194304" in refusal(path)


# Numbers that are no ordinary float32


@pytest.mark.parametrize(
    ("dtype", "stored", "expected"),
    [
        (1, np.array([np.nan, np.inf, -np.inf, -0.0], np.float32), None),
        (19, np.array([np.nan, np.inf, 6e-8, 65504], np.float16), None),
        (14, np.array([0x7FC0, 0xFF80, 0x0001, 0x3F80], np.uint16), np.float32([np.nan, -np.inf, 2**-133, 1])),
        (2, np.array([1e300, 5e-324, np.nan, 1]), None),
    ],
    ids=["float32", "float16", "bfloat16", "float64"],
)
def test_numbers_at_the_edges_of_their_type_are_read_as_they_are(
    tmp_path: Path, dtype: int, stored: np.ndarray, expected: np.ndarray | None
) -> None:
    raw = stored.tobytes()
    path = v2(tmp_path / "m", {b"x": entry(raw, shape(4), dtype)}, raw)
    with open_checkpoint(path) as checkpoint:
        np.testing.assert_array_equal(checkpoint.read("x"), stored if expected is None else expected, strict=True)


def test_bfloat16_in_v1_is_refused_by_name(tmp_path: Path) -> None:
    path = tmp_path / "m"
    path.write_bytes(v1_table({"x": (shape(2), 14, [FULL])}, {}))
    assert refusal(path) == f"{path}: 'x' holds bfloat16, which is not read here. Save it as float32."
