"""State dicts that torch.save wrote are read without torch."""

import struct
import zipfile
from pathlib import Path

import needs
import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from torch_files import (
    ORDERED,
    PROTO,
    STOP,
    Outcome,
    failure,
    number,
    one,
    outcome,
    refuse_what_is_no_file,
    state_dict,
    storage,
    tensor,
    text,
    torch_zip,
)

from resnet_ref.errors import CheckpointError
from resnet_ref.weights.elsewhere import zip_records
from resnet_ref.weights.elsewhere.torch_zip import TorchZip

RECORDED = Path(__file__).parent / "recorded"
PLAIN, WRAPPED, LEGACY = (RECORDED / f"torch_{name}.pth" for name in ("plain", "wrapped", "legacy"))


def same(got: Outcome, want: Outcome) -> bool:
    return got.keys() == want.keys() and all(np.array_equal(got[name], want[name]) for name in want)


def test_a_state_dict_is_what_torch_saved() -> None:
    """record_torch.py counts from the number of the tensor on."""
    shapes = {"0.weight": (4, 3, 1, 1), "1.weight": (4,), "1.bias": (4,), "1.running_mean": (4,), "1.running_var": (4,)}
    with TorchZip(PLAIN) as arrays:
        assert (arrays.kind, arrays.path, arrays.files) == ("PyTorch zip", PLAIN, ((str(PLAIN), PLAIN.stat().st_size),))
        assert arrays.variables["1.num_batches_tracked"].stored == "int64"
        assert arrays.variables.keys() == {*shapes, "1.num_batches_tracked"}
        for n, (name, shape) in enumerate(shapes.items()):
            variable, got = arrays.variables[name], arrays.read(name)
            assert (variable.dtype, variable.shape, variable.nbytes) == (np.float32, shape, got.nbytes)
            assert got.dtype == np.float32
            assert got.flags.c_contiguous
            assert np.array_equal(got, np.arange(got.size).reshape(shape) + n)
        assert arrays.read("1.num_batches_tracked").shape == ()
        assert arrays.read("1.num_batches_tracked") == 5


def test_every_type_and_view_is_read_and_what_lies_beside_the_state_dict_is_listed() -> None:
    with TorchZip(WRAPPED) as arrays:
        stored = {name: variable.stored for name, variable in arrays.variables.items()}
    found = outcome(TorchZip, WRAPPED)
    for kind in ("float32", "float64", "float16", "bfloat16", "int64", "int32", "int16", "int8", "uint8"):
        got = found[f"module.{kind}"]
        assert isinstance(got, np.ndarray)
        assert (got.dtype, stored[f"module.{kind}"]) == ("float32" if kind == "bfloat16" else kind, kind)
        assert got.tolist() == [0, 1, 2, 3, 4]
    counted = np.arange(24, dtype=np.float32).reshape(2, 3, 4)
    assert np.array_equal(found["module.bool"], [True, False, True])
    assert np.array_equal(found["module.transposed"], counted.transpose(2, 0, 1))
    assert np.array_equal(found["module.sliced"], counted[1, 1:, ::2])
    assert np.array_equal(found["module.parameter"], np.arange(3))
    assert np.array_equal(found["module.scalar"], 7)
    assert np.array_equal(found["module.empty"], np.zeros((0, 3)))
    beside = {"epoch": "int", "best": "float", "arch": "str", "done": "bool", "none": "NoneType", "big": "int"}
    beside |= {"optimizer": "dict", "module.complex64": "complex64"}
    for name, kind in beside.items():
        assert stored[name] == kind
        assert str(found[name]).endswith(f"{name!r} is no array of numbers that can be read, but {kind}")


def test_a_tensor_beside_the_state_dict_is_none_of_the_networks(tmp_path: Path) -> None:
    """As PyTorch's own example keeps the best accuracy."""
    inner = ORDERED + b"(" + text("a") + tensor("0", 2, [2], [1]) + b"u"
    top = PROTO + b"}(" + text("state_dict") + inner + text("best") + tensor("1", 1, [], []) + b"u" + STOP
    path = torch_zip(tmp_path / "a.pth", top, {"data/0": bytes(8), "data/1": bytes(4)})
    with TorchZip(path) as arrays:
        assert {name: variable.stored for name, variable in arrays.variables.items()} == {
            "a": "float32",
            "best": "a tensor beside the state dict",
        }
        assert np.array_equal(arrays.read("a"), [0, 0])


def test_bfloat16_and_big_endian_numbers_come_exactly(tmp_path: Path) -> None:
    pickle = state_dict({"a": tensor("0", 2, [2], [1], kind="BFloat16Storage"), "b": tensor("1", 1, [], [])})
    for order in ("little", "big"):
        sign = "<" if order == "little" else ">"
        records = {"byteorder": order.encode(), "data/0": struct.pack(f"{sign}2H", 0x3F80, 0xC049)}
        records["data/1"] = struct.pack(f"{sign}f", 0.1)
        found = outcome(TorchZip, torch_zip(tmp_path / order, pickle, records))
        assert same(found, {"a": np.array([1, -3.140625], "f4"), "b": np.array(0.1, "f4")})


def test_files_of_another_format_get_advice(tmp_path: Path) -> None:
    """The old format, TorchScript, another zip file, another file."""
    assert "is of the old format of torch.save, from before PyTorch 1.6; load it and save it" in failure(
        TorchZip, LEGACY
    )
    for compression in (zipfile.ZIP_STORED, zipfile.ZIP_DEFLATED):  # torch.jit compresses the code
        path = tmp_path / f"script{compression}"
        torch_zip(path, state_dict({}), {"code/net.py": b"pass" * 99, "constants.pkl": b""}, compression=compression)
        assert "expected a state dict, got a TorchScript archive: load it with torch.jit" in failure(TorchZip, path)
    with zipfile.ZipFile(tmp_path / "zip", "w") as archive:
        archive.writestr("a", b"")
    assert failure(TorchZip, tmp_path / "zip").endswith("not one of torch.save: it has no data.pkl.")
    (tmp_path / "text").write_bytes(b"hello\nworld")
    assert "expected a zip file of torch.save, got a file that begins with b'hello" in failure(
        TorchZip, tmp_path / "text"
    )


@needs.PIPES
def test_a_path_that_is_no_file_is_refused(tmp_path: Path) -> None:
    refuse_what_is_no_file(TorchZip, tmp_path)


def test_an_unknown_name_and_a_closed_file_say_so(tmp_path: Path) -> None:
    arrays = TorchZip(one(tmp_path / "a", [6], [1]))
    with pytest.raises(CheckpointError, match="there is no 'b'; see `variables`"), arrays:
        arrays.read("b")
    with pytest.raises(CheckpointError, match="cannot be read"):
        arrays.read("a")


VIEWS = {
    "the whole": ([2, 3], [3, 1], 0, np.arange(6).reshape(2, 3)),
    "the end": ([2], [2], 3, np.array([3, 5])),
    "none": ([0, 9], [9, 1], 6, np.zeros((0, 9))),
    "beyond": ([2, 3], [3, 1], 1, "a tensor of shape [2, 3] lies outside its storage of 6 elements"),
    "stride": ([2], [6], 0, "a tensor of shape [2] lies outside its storage of 6 elements"),
    "repeated": ([7], [0], 0, "a tensor [7] that repeats its elements, as expand does; make it .contiguous()"),
    "terabytes": ([1 << 62, 1 << 62], [0, 0], 0, "that repeats its elements"),
    "more terabytes": ([1 << 62, 1 << 62], [1, 1], 0, "lies outside its storage of 6 elements"),
    "far": ([1], [1], 1 << 62, "lies outside its storage of 6 elements"),
    "none, far": ([0], [1], 7, "lies outside its storage of 6 elements"),
    "negative": ([2], [-1], 3, "a tensor's offset, size and stride are no whole numbers from 0"),
    "before": ([2], [1], -1, "a tensor's offset, size and stride are no whole numbers from 0"),
    "ranks": ([2, 3], [1], 0, "a tensor's offset, size and stride are no whole numbers from 0"),
    "axes": ([1] * 33, [1] * 33, 0, "a tensor's offset, size and stride are no whole numbers from 0"),
}


@pytest.mark.parametrize("case", VIEWS)
def test_a_view_lies_in_its_storage_or_is_refused(tmp_path: Path, case: str) -> None:
    *view, want = VIEWS[case]
    path = one(tmp_path / "a", *view)
    if isinstance(want, str):
        assert want in failure(TorchZip, path)
    else:
        assert same(outcome(TorchZip, path), {"a": want})


def test_a_storage_of_another_size_or_without_a_record_is_refused(tmp_path: Path) -> None:
    path = one(tmp_path / "a", [5], [1], length=5)
    assert "'a' should lie in 'data/0', which has 24 bytes, expected 20." in failure(TorchZip, path)
    assert "has 24 bytes, expected 4398046511104" in failure(TorchZip, one(tmp_path / "b", [1], [1], length=1 << 40))
    path = torch_zip(tmp_path / "c", state_dict({"a": tensor("../\n", 1, [1], [1])}))
    assert "'a' should lie in 'data/../\\n', which is not there." in failure(TorchZip, path)
    path = torch_zip(tmp_path / "d", state_dict({}), {"byteorder": b"middle"})
    assert "its byte order is b'middle', expected little or big" in failure(TorchZip, path)


def value(opcodes: bytes) -> bytes:
    return PROTO + opcodes + STOP


def item(name: bytes, opcodes: bytes) -> bytes:
    return b"}" + name + opcodes + b"s"


TENSOR = tensor("0", 1, [1], [1])
TOPS = {
    "a list": (b"]", "expected a state dict, got a list; save the state dict alone: torch.save(model.state_dict()"),
    "a tensor": (TENSOR, "expected a state dict, got a tensor; save"),
    "a key": (item(b"K\1", TENSOR), "expected a state dict, whose keys are names, got the key 1; save"),
    "two": (
        b"}(" + b"".join(text(name) + item(text("a"), TENSOR) for name in ("state_dict", "model")) + b"u",
        "holds two state dicts, 'state_dict' and 'model'; save",
    ),
    "beside": (
        b"}(" + text("model") + item(text("a"), TENSOR) + text("a") + TENSOR + b"u",
        "'a' is in the state dict and beside it; save",
    ),
}


@pytest.mark.parametrize("case", TOPS)
def test_what_is_no_state_dict_is_named(tmp_path: Path, case: str) -> None:
    opcodes, message = TOPS[case]
    assert message in failure(TorchZip, torch_zip(tmp_path / "a", value(opcodes), {"data/0": bytes(4)}))


def test_a_network_may_be_called_model_and_a_storage_is_no_array(tmp_path: Path) -> None:
    """A wrapper is a dict: a tensor of that name is one of the arrays."""
    pickle = value(b"}(" + text("model") + TENSOR + text("a") + storage("0", 1) + text("b") + number(1) + b"u")
    found = outcome(TorchZip, torch_zip(tmp_path / "a", pickle, {"data/0": bytes(4)}))
    assert np.array_equal(found["model"], [0])
    assert str(found["a"]).endswith("but an object of torch")
    assert outcome(TorchZip, torch_zip(tmp_path / "b", value(ORDERED))) == {}


def test_a_flipped_bit_anywhere_gives_the_same_arrays_or_an_error(tmp_path: Path) -> None:
    """Every bit of every byte of a small file: never another number, shape or name."""
    data = one(tmp_path / "a", [2, 3], [3, 1]).read_bytes()
    want, changed = {"a": np.arange(6).reshape(2, 3)}, tmp_path / "b"
    for at in range(len(data)):
        for bit in range(8):
            changed.write_bytes(data[:at] + bytes([data[at] ^ 1 << bit]) + data[at + 1 :])
            found = outcome(TorchZip, changed)
            assert same(found, want) or any(isinstance(v, str) for v in found.values()), (at, bit)


def test_a_file_cut_anywhere_is_refused(tmp_path: Path) -> None:
    data = one(tmp_path / "b", [6], [1]).read_bytes()
    for size in range(len(data)):
        (tmp_path / "a").write_bytes(data[:size])
        assert failure(TorchZip, tmp_path / "a")


@given(edits=st.lists(st.tuples(st.integers(0, 6000), st.integers(0, 255)), min_size=1, max_size=4))
@settings(max_examples=300, suppress_health_check=[HealthCheck.function_scoped_fixture])
def test_whatever_is_changed_in_a_file_it_reads_or_gives_errors(tmp_path: Path, edits: list[tuple[int, int]]) -> None:
    data = bytearray(WRAPPED.read_bytes())
    for at, byte in edits:
        data[at % len(data)] = byte
    (tmp_path / "a").write_bytes(data)
    assert outcome(TorchZip, tmp_path / "a")


def test_members_that_torch_does_not_write_are_refused(tmp_path: Path) -> None:
    """Compressed, encrypted, doubled, outside the folder, too many, of a pickle too large."""

    def said(**how: object) -> str:
        return failure(TorchZip, torch_zip(tmp_path / "a", value(b"}"), **how))  # type: ignore[arg-type]

    assert "'archive/data.pkl' is compressed, which torch.save does not do" in said(compression=zipfile.ZIP_DEFLATED)
    with pytest.warns(UserWarning, match="Duplicate name"):
        assert "'archive/data.pkl' is there twice" in said(records={"data.pkl": b""})
    assert "it has 2 data.pkl" in said(records={"b/data.pkl": b""})
    many = {str(n): b"" for n in range(zip_records.MOST_MEMBERS)}
    assert "more than 10000" in said(records=many)
    wide = {f"{n}{'a' * 60_000}": b"" for n in range(20)}
    assert "it claims 12" in said(records=wide)
    assert "'archive/data.pkl' has 8388609 bytes, expected at most 8388608" in failure(
        TorchZip, torch_zip(tmp_path / "b", bytes((8 << 20) + 1))
    )
    path = torch_zip(tmp_path / "c", value(b"}"))
    with zipfile.ZipFile(path, "a") as archive:
        archive.writestr("elsewhere", b"")
    assert "'elsewhere' lies outside the folder 'archive'" in failure(TorchZip, path)
    data = bytearray(torch_zip(tmp_path / "d", value(b"}")).read_bytes())
    data[data.index(b"PK\1\2") + 8] |= 1
    (tmp_path / "d").write_bytes(data)
    assert "'archive/data.pkl' is encrypted" in failure(TorchZip, tmp_path / "d")
