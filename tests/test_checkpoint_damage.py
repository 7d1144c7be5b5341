"""A damaged or malicious checkpoint gives a CheckpointError of one line, or the right numbers: nothing else."""

import tracemalloc
from pathlib import Path

import numpy as np
import pytest
from checkpoint_files import (
    MAGIC,
    block,
    entry,
    masked,
    message,
    piece,
    save,
    shape,
    table,
    tensorflow,
    v1_scalar,
    v1_table,
    v2,
    v2_scalar,
    varint,
    with_index,
)
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from resnet_ref.errors import CheckpointError
from resnet_ref.weights.checkpoint import open_checkpoint

VALUES = {
    "a/gamma": np.arange(5, dtype=np.float32),
    "a/weights": np.arange(24, dtype=np.float64).reshape(2, 3, 4),
    "global_step": np.int64(-3),
    "h": np.array([1, 2], np.float16),
}


def outcome(path: Path) -> dict[str, bytes | str]:
    """Return each variable's bytes, or the error it got; opening's own error under the name ''."""
    try:
        with open_checkpoint(path) as checkpoint:
            result: dict[str, bytes | str] = {}
            for name in checkpoint.variables:
                try:
                    array = checkpoint.read(name)
                    result[name] = repr((array.dtype.str, array.shape)).encode() + array.tobytes()
                except CheckpointError as error:
                    result[name] = str(error)
    except CheckpointError as error:
        result = {"": str(error)}
    for value in result.values():
        assert isinstance(value, bytes) or "\n" not in value
    return result


def failure(path: Path) -> str:
    """Return the one error of a checkpoint that must not be readable."""
    errors = [value for value in outcome(path).values() if isinstance(value, str)]
    assert len(errors) == 1, errors
    return errors[0]


@pytest.fixture(scope="module", params=["v1", "v2", "object"])
def small(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A prefix of a checkpoint of a few hundred bytes that TensorFlow wrote."""
    prefix = tmp_path_factory.mktemp(request.param) / "model"
    if request.param == "object":
        tf = tensorflow()
        module = tf.Module()
        module.variables_ = [tf.Variable(value, name=name) for name, value in VALUES.items()]
        return Path(tf.train.Checkpoint(model=module).write(str(prefix)))
    save(prefix, VALUES, int(request.param[1]), partitioned={"p": (np.arange(6, dtype=np.float32), 2, 0)})
    return prefix


def parts(prefix: Path) -> list[Path]:
    """Return the files that the reader reads."""
    return [path for path in prefix.parent.glob(f"{prefix.name}*") if path.suffix != ".meta"]


@pytest.mark.oracle
@pytest.mark.parametrize("flip", [0x01, 0x80, 0xFF])
def test_a_flipped_byte_anywhere_never_gives_other_numbers(small: Path, flip: int) -> None:
    right = outcome(small)
    assert all(isinstance(value, bytes) for value in right.values())
    for path in parts(small):
        whole = path.read_bytes()
        step = max(1, len(whole) // 400)
        noticed = 0
        for at in range(0, len(whole), step):
            path.write_bytes(whole[:at] + bytes([whole[at] ^ flip]) + whole[at + 1 :])
            got = outcome(small)
            for name, value in got.items():
                assert isinstance(value, str) or value == right[name], (path.name, at, name)
            noticed += got != right
        path.write_bytes(whole)
        assert noticed > 0.8 * len(range(0, len(whole), step))


@pytest.mark.oracle
def test_a_cut_anywhere_is_noticed(small: Path) -> None:
    for path in parts(small):
        whole = path.read_bytes()
        for size in range(0, len(whole), max(1, len(whole) // 300)):
            path.write_bytes(whole[:size])
            assert any(isinstance(value, str) for value in outcome(small).values()), (path.name, size)
        path.write_bytes(whole)


garbage = st.one_of(
    st.binary(max_size=200),
    st.lists(st.one_of(st.binary(max_size=8), st.integers(0, 2**64 - 1).map(varint)), max_size=12).map(b"".join),
)


@settings(max_examples=150, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(garbage, garbage, garbage)
def test_garbage_in_any_layer_is_refused(tmp_path: Path, one: bytes, two: bytes, three: bytes) -> None:
    """Checksums are right here, so that the garbage gets past them: file, block, index, header, entries, messages."""
    data = tmp_path / "m.data-00000-of-00001"
    data.write_bytes(one)
    keys = {b"": two, b"x": three}
    framed = one + b"\0" + masked(one + b"\0").to_bytes(4, "little")
    for content in (
        one,
        one + v1_scalar("x", 1)[-48:],
        table(keys),
        table({b"": message((1, 1))} | {b"x": one, b"y": two, b"\0z": three}),
        table({b"": message((1, message((1, one), (1, two))))}),
        v1_table({"x": (b"", 1, [b""])}, {b"\0x\0\1\0": one}),
        v1_table({"x": (one, 1, [two])}, {b"\0x\0\1\0": three}),
        with_index(framed, [(b"x", (0, len(one)))]),
        with_index(block(keys.items()), [(one, (len(two), len(three)))]),
    ):
        (tmp_path / "m.index").write_bytes(content)
        (tmp_path / "m").write_bytes(content)
        for path in (tmp_path / "m", tmp_path / "m.index"):
            for value in outcome(path).values():
                assert isinstance(value, str) or len(value) < 1000


FOUR = np.arange(4, dtype=np.float32).tobytes()


def one_key(start: int, length: int) -> bytes:
    """Return the key of a slice of the vector x; both numbers are below 64."""
    return b"\0x\0\1\1\1" + bytes([0x80 | start, 0x80 | length])


V2_CASES: dict[str, tuple[dict[bytes, bytes], str]] = {
    "too long": ({b"x": entry(FOUR, shape(5), size=20)}, "has only 16 bytes"),
    "size and shape disagree": ({b"x": entry(FOUR, shape(5))}, "is 20 bytes, not 16"),
    "astronomic": ({b"x": entry(FOUR, shape(2**40, 2**40))}, "absurdly large"),
    "hollow": ({b"x": entry(b"", shape(0, 2**62))}, "absurdly large"),
    "negative size": ({b"x": entry(FOUR, shape(-4))}, "negative size"),
    "negative offset": ({b"x": entry(FOUR, shape(4), offset=-16)}, "from byte -16"),
    "beyond the end": ({b"x": entry(FOUR, shape(4), offset=4)}, "has only 16 bytes"),
    "shard": ({b"x": entry(FOUR, shape(4), shard=1)}, "there are only 1"),
    "rank": ({b"x": entry(FOUR[:4], shape(*[1] * 65))}, "65 dimensions"),
    "unknown rank": ({b"x": entry(FOUR, message((3, 1)))}, "shape is unknown"),
    "checksum": ({b"x": entry(FOUR[::-1], shape(4))}, "checksum"),
    "variant": ({b"x": entry(FOUR, shape(4), dtype=21)}, "variant"),
    "new type": ({b"x": entry(FOUR, shape(4), dtype=77)}, "type 77"),
    "bool": ({b"x": entry(FOUR, shape(16), dtype=10)}, "bool is 0 or 1"),
    "order": ({b"y": entry(FOUR, shape(4)), b"x": entry(FOUR, shape(4))}, "ascending"),
    "name": ({b"\xff": entry(FOUR, shape(4))}, "UTF-8"),
    "long field": ({b"x": b"\x12\x05a"}, "runs past the end"),
    "wide varint": ({b"x": b"\x08" + b"\xff" * 9 + b"\x7f"}, "exceeds 64 bits"),
    "slices of nothing": ({b"x": message((1, 1), (2, shape(99)), (7, piece((0, 99))))}, "more elements"),
    "slice of another shape": (
        {one_key(0, 4): entry(FOUR, shape(2, 2)), b"x": message((1, 1), (2, shape(4)), (7, piece((0, 4))))},
        "is float32 of shape (2, 2)",
    ),
    "wire type": ({b"x": b"\x0b"}, "wire type 3"),
    "long key": ({b"x" * 5000: entry(FOUR, shape(4))}, "key of 500"),
}


@pytest.mark.parametrize("case", V2_CASES)
def test_a_wrong_v2_entry_is_named(tmp_path: Path, case: str) -> None:
    entries, expected = V2_CASES[case]
    assert expected in failure(v2(tmp_path / "m", entries, FOUR))


@pytest.mark.parametrize(
    ("header", "expected"),
    [
        (message((1, 1), (2, 1)), "big-endian"),
        (message((1, 1), (3, message((1, 9), (2, 2)))), "version 2"),
        (message((1, 0), (2, 0)), "claims 0 data files"),
        (message((1, 2**62)), "missing"),
    ],
)
def test_a_wrong_v2_header_is_named(tmp_path: Path, header: bytes, expected: str) -> None:
    assert expected in failure(v2(tmp_path / "m", {}, b"", header))


def whole_and(*pieces: bytes, dims: bytes) -> bytes:
    """Encode the V2 entry of a partitioned float32 variable."""
    return message((1, 1), (2, dims), *((7, part) for part in pieces))


SLICE_CASES = {
    "good": ([(0, 2), (2, 2)], 4, None),
    "gap": ([(0, 1), (2, 2)], 4, "hold 3 elements"),
    "overlap": ([(0, 2), (1, 2)], 4, "overlaps"),
    "outside": ([(0, 2), (3, 2)], 4, "leaves the shape"),
    "negative": ([(-1, 2), (2, 2)], 4, "leaves the shape"),
    "none": ([], 4, "0 slices"),  # the last one: without slices, a V2 entry is a whole variable
}


@pytest.mark.parametrize(("case", "version"), [(case, version) for case in SLICE_CASES for version in (1, 2)][:-1])
def test_slices_must_cover_a_variable_without_gap_or_overlap(tmp_path: Path, case: str, version: int) -> None:
    extents, size, expected = SLICE_CASES[case]
    boxes = [piece(extent) for extent in extents]
    keys = [one_key(start % 64, length) for start, length in extents]
    if version == 1:
        values = [
            message((1, b"x"), (2, box), (3, message((5, FOUR[: 4 * n]))))
            for box, (_, n) in zip(boxes, extents, strict=True)
        ]
        (tmp_path / "m").write_bytes(
            v1_table({"x": (shape(size), 1, boxes)}, dict(sorted(zip(keys, values, strict=True))))
        )
    else:
        entries = {key: entry(FOUR[: 4 * n], shape(n)) for key, (_, n) in zip(keys, extents, strict=True)}
        v2(tmp_path / "m", dict(sorted(entries.items())) | {b"x": whole_and(*boxes, dims=shape(size))}, FOUR)
    if expected:
        assert expected in failure(tmp_path / "m")
    else:
        with open_checkpoint(tmp_path / "m") as checkpoint:
            np.testing.assert_array_equal(checkpoint.read("x"), np.array([0, 1, 0, 1], np.float32), strict=True)


def test_slices_of_several_shards_and_axes_make_one_array(tmp_path: Path) -> None:
    """A 2 x 3 matrix of four uneven boxes, two in each of two V1 shards."""
    matrix = np.arange(6, dtype=np.float32).reshape(2, 3)
    for shard, rows in enumerate((slice(0, 1), slice(1, 2))):
        boxes, values = [], {}
        for start, length in ((0, 1), (1, 2)):
            boxes.append(piece((rows.start, 1), (start, length)))
            floats = message((5, matrix[rows, start : start + length].tobytes()))
            key = b"\0x\0\1\1\2" + bytes(0x80 | n for n in (rows.start, 1, start, length))
            values[key] = message((1, b"x"), (2, boxes[-1]), (3, floats))
        path = tmp_path / f"m-0000{shard}-of-00002"
        path.write_bytes(v1_table({"x": (shape(2, 3), 1, boxes)}, values))
    with open_checkpoint(tmp_path) as checkpoint:
        np.testing.assert_array_equal(checkpoint.read("x"), matrix, strict=True)


V1_VALUES: dict[str, tuple[int, bytes, str]] = {
    "too few": (1, message((5, FOUR[:4])), "expected 2 elements"),
    "other field": (1, message((6, FOUR[:8])), "expected 2 elements"),
    "unpacked": (1, b"\x2d\0\0\0\0" * 2, "integer where bytes"),
    "few varints": (3, message((7, b"\x01")), "expected 2 varints"),
    "open varint": (3, message((7, b"\x01\x80")), "expected 2 varints"),
    "long varint": (9, message((10, b"\x80" * 10 + b"\0\0")), "exceeds 64 bits"),
    "not int8": (6, message((7, varint(127) + varint(128))), "does not fit into int8"),
    "not half": (19, message((13, varint(0) + varint(1 << 16))), "does not fit into float16"),
    "no bool": (10, message((11, b"\0\2")), "bool is 0 or 1"),
}


@pytest.mark.parametrize("case", V1_VALUES)
def test_wrong_v1_elements_are_named(tmp_path: Path, case: str) -> None:
    dtype, tensor, expected = V1_VALUES[case]
    box = message((1, b""))  # one dimension, in full
    value = message((1, b"x"), (2, box), (3, tensor))
    (tmp_path / "m").write_bytes(v1_table({"x": (shape(2), dtype, [box])}, {b"\0x\0\1\1\1\x80\x7f": value}))
    assert expected in failure(tmp_path / "m")


def test_a_v1_value_of_another_variable_is_refused(tmp_path: Path) -> None:
    value = message((1, b"y"), (2, b""), (3, message((5, FOUR[:4]))))
    (tmp_path / "m").write_bytes(v1_table({"x": (b"", 1, [b""])}, {b"\0x\0\1\0": value}))
    assert "belong to 'y'" in failure(tmp_path / "m")


def test_a_listed_v1_value_that_is_not_there_is_named(tmp_path: Path) -> None:
    (tmp_path / "m").write_bytes(v1_table({"x": (b"", 1, [b""])}, {}))
    assert "listed but not there" in failure(tmp_path / "m")


def test_a_snappy_block_is_refused_by_name(tmp_path: Path) -> None:
    (tmp_path / "m").write_bytes(table({b"": b""}, compression=1))
    assert "Snappy" in failure(tmp_path / "m")


def test_a_block_handle_may_not_leave_the_file_or_come_back(tmp_path: Path) -> None:
    """Out of range, or two entries of the index for one block (keys would not ascend)."""
    data = block({b"": message((1, 1))}.items())
    good = (0, len(data) - 5)
    for handles, expected in (
        ([(b"x", (2**63, 4))], "the file has only"),
        ([(b"x", (0, 2**63))], "the file has only"),
        ([(b"x", good), (b"y", good)], "ascending"),
        ([(b"y", good), (b"x", good)], "ascending"),
    ):
        (tmp_path / "m.index").write_bytes(with_index(data, handles))
        (tmp_path / "m.data-00000-of-00001").write_bytes(b"")
        assert expected in failure(tmp_path / "m")


HUGE = 2**34


@pytest.mark.parametrize(
    "index",
    [
        table({b"": message((1, 1)), b"x": entry(b"", shape(HUGE))}),
        table({b"": message((1, 1)), b"x": entry(b"", shape(HUGE), size=4 * HUGE)}),
        table({b"": message((1, 1)), b"x": whole_and(piece((0, HUGE)), dims=shape(HUGE))}),
        v1_table({"x": (shape(HUGE), 1, [message((1, b""))])}, {}),
        with_index(b"", [(b"x", (0, HUGE))]),
    ],
    ids=["V2 shape", "V2 size", "V2 slices", "V1 shape", "block"],
)
def test_nothing_is_allocated_for_a_size_that_is_only_claimed(tmp_path: Path, index: bytes) -> None:
    path = tmp_path / "m.ckpt"
    (tmp_path / "m.ckpt.data-00000-of-00001").write_bytes(b"")
    for file in (path, tmp_path / "m.ckpt.index"):
        file.write_bytes(index)
    tracemalloc.start()
    try:
        outcome(path)
        outcome(tmp_path / "m.ckpt.index")
        assert tracemalloc.get_traced_memory()[1] < 1 << 20
    finally:
        tracemalloc.stop()


def test_a_data_file_of_another_checkpoint_is_noticed(tmp_path: Path) -> None:
    v2_scalar(tmp_path / "a", "x", 1)
    v2_scalar(tmp_path / "b", "x", 2)
    (tmp_path / "b.data-00000-of-00001").replace(tmp_path / "a.data-00000-of-00001")
    assert "checksum" in failure(tmp_path / "a")


def test_a_v1_shape_larger_than_its_file_is_named(tmp_path: Path) -> None:
    (tmp_path / "m").write_bytes(v1_table({"x": (shape(2**34), 1, [message((1, b""))])}, {}))
    assert "more elements than the file has bytes" in failure(tmp_path / "m")


def test_shards_must_agree_on_a_variable(tmp_path: Path) -> None:
    for shard, size in enumerate((4, 5)):
        whole = v1_table({"x": (shape(size), 1, [piece((shard, 1))])}, {})
        (tmp_path / f"m-0000{shard}-of-00002").write_bytes(whole)
    assert "'x' is float32 (5,) here, float32 (4,) before" in failure(tmp_path / "m")


def test_an_index_out_of_order_or_with_a_padded_handle_is_refused(tmp_path: Path) -> None:
    data = block({b"": message((1, 1))}.items())
    swapped = with_index(data + data, [(b"y", (0, len(data) - 5)), (b"x", (len(data), len(data) - 5))])
    padded = data + (index := block([(b"x", varint(0) + varint(len(data) - 5) + b"\0")]))
    padded += (b"\0\0" + varint(len(data)) + varint(len(index) - 5)).ljust(40, b"\0") + MAGIC
    for content, expected in ((swapped, "its index: its keys are not"), (padded, "a block handle of")):
        (tmp_path / "m.index").write_bytes(content)
        assert expected in failure(tmp_path / "m.index")


def test_a_key_may_not_share_more_than_the_key_before_has(tmp_path: Path) -> None:
    raw = b"\x05\0\0" + b"\0\0\0\0\1\0\0\0" + b"\0"
    data = raw + masked(raw).to_bytes(4, "little")
    (tmp_path / "m").write_bytes(with_index(data, [(b"x", (0, len(data) - 5))]))
    assert "runs past the end of its block" in failure(tmp_path / "m")
