"""Files of safetensors give the library's numbers; broken and hostile ones a CheckpointError of one line."""

import struct
from pathlib import Path
from typing import Any

import needs
import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from torch_files import entry, failure, outcome, refuse_what_is_no_file, safetensors

from resnet_ref.errors import CheckpointError
from resnet_ref.weights.elsewhere.safetensors_file import MOST_HEADER_BYTES, SafetensorsFile

KINDS = ("float16", "float32", "float64", "int8", "int16", "int32", "int64", "uint8", "uint16", "uint32", "uint64")


def test_every_type_comes_as_the_library_wrote_it(tmp_path: Path) -> None:
    """Names, dtypes, shapes and values, of scalars and of nothing too; metadata is no tensor."""
    library = pytest.importorskip("safetensors.numpy")
    rng = np.random.default_rng(0)
    wrote = {f"a.{kind}": rng.integers(0, 100, (3, 2, 5)).astype(kind) for kind in KINDS}
    wrote |= {"bool": np.array([True, False]), "scalar": np.array(3, np.float32), "none": np.zeros((0, 4), "f4")}
    library.save_file(wrote, tmp_path / "a.safetensors", metadata={"format": "pt"})
    with SafetensorsFile(tmp_path / "a.safetensors") as arrays:
        assert (arrays.kind, arrays.path) == ("safetensors", tmp_path / "a.safetensors")
        assert arrays.files == ((str(arrays.path), arrays.path.stat().st_size),)
        assert list(arrays.variables) == sorted(wrote)
        for name, want in wrote.items():
            variable, got = arrays.variables[name], arrays.read(name)
            assert (variable.dtype, variable.shape, variable.nbytes) == (want.dtype, want.shape, want.nbytes)
            assert (got.dtype, got.shape) == (want.dtype, want.shape)
            assert np.array_equal(got, want)


def test_bfloat16_widens_exactly(tmp_path: Path) -> None:
    """To float32, whose upper half it is; the type that is stored is said."""
    data = np.array([0x3F80, 0xC049, 0x0001, 0x7F7F], "<u2")
    path = safetensors(tmp_path / "a", {"a": entry("BF16", [2, 2], 0, 8)}, data.tobytes())
    with SafetensorsFile(path) as arrays:
        assert (arrays.variables["a"].dtype, arrays.variables["a"].stored) == (np.float32, "bfloat16")
        got = arrays.read("a")
    assert got.shape == (2, 2)
    assert got[0].tolist() == [1.0, -3.140625]
    assert np.array_equal(got.view(np.uint32).reshape(-1), data.astype(np.uint32) << 16)


def test_a_type_that_numpy_has_not_is_listed_and_not_read(tmp_path: Path) -> None:
    path = safetensors(tmp_path / "a", {"a": entry("F8_E4M3", [2], 0, 2)}, b"\0\0")
    with SafetensorsFile(path) as arrays:
        assert arrays.variables["a"].dtype == "F8_E4M3"
    assert failure(SafetensorsFile, path).endswith("'a' is no array of numbers that can be read, but F8_E4M3")


def test_an_unknown_name_and_a_closed_file_say_so(tmp_path: Path) -> None:
    path = safetensors(tmp_path / "a", {"conv1": entry("U8", [1], 0, 1)}, b"\0")
    arrays = SafetensorsFile(path)
    with pytest.raises(CheckpointError, match="there is no 'conv2'; the nearest names are 'conv1'"), arrays:
        arrays.read("conv2")
    with pytest.raises(CheckpointError, match="cannot be read"):
        arrays.read("conv1")


F4 = entry("F32", [1], 0, 4)
BROKEN: dict[str, tuple[Any, bytes, str]] = {
    "no JSON": (b"{", b"", "its header is no JSON"),
    "no UTF-8": (b'{"\xff":1}', b"", "its header is no JSON: 'utf-8' codec"),
    "nested": (b"[" * 100_000, b"", "its header is no JSON"),
    "a number without end": (b'{"a":' + b"9" * 5000 + b"}", b"", "its header is no JSON: Exceeds the limit"),
    "no object": ([], b"", "its header is JSON, but no object"),
    "NaN": (b'{"a":NaN}', b"", "its header has the number NaN"),
    "twice": (b'{"a":{"dtype":"U8","shape":[0],"data_offsets":[0,0]},"a":1}', b"", "its header has 'a' twice"),
    "no entry": ({"a": 1}, b"", "'a' should have dtype, shape and data_offsets"),
    "more": ({"a": F4 | {"b": 1}}, b"\0" * 4, "'a' should have dtype, shape and data_offsets"),
    "dtype": ({"a": entry(1, [1], 0, 4)}, b"\0" * 4, "the dtype of 'a' is no text"),
    "negative": ({"a": entry("F32", [-1, -1], 0, 4)}, b"\0" * 4, "the shape of 'a' is no list"),
    "true": ({"a": entry("F32", [True], 0, 4)}, b"\0" * 4, "the shape of 'a' is no list"),
    "axes": ({"a": entry("F32", [1] * 33, 0, 4)}, b"\0" * 4, "the shape of 'a' is no list of at most 32 sizes"),
    "offsets": ({"a": entry("F32", [1], 4, 0)}, b"\0" * 4, "the data_offsets of 'a' are not where it begins and ends"),
    "three": ({"a": entry("F32", [1], 0, 4, 4)}, b"\0" * 4, "the data_offsets of 'a' are not where it begins"),
    "terabytes": ({"a": entry("F32", [1 << 40], 0, 4 << 40)}, b"\0" * 4, "have 4398046511104 bytes, the file has 4"),
    "overflow": ({"a": entry("F32", [1 << 62, 4], 0, 0)}, b"", "'a' has 0 bytes, expected 73786976294838206464"),
    "shape": ({"a": entry("F32", [2], 0, 4)}, b"\0" * 4, "'a' has 4 bytes, expected 8 for its shape"),
    "overlap": ({"a": F4, "b": entry("F32", [1], 2, 6)}, b"\0" * 6, "'b' begins at byte 2, expected 4"),
    "shared": ({"a": F4, "b": F4}, b"\0" * 4, "'b' begins at byte 0, expected 4, where the one before it ends"),
    "gap": ({"a": F4, "b": entry("F32", [1], 8, 12)}, b"\0" * 12, "'b' begins at byte 8, expected 4"),
    "left over": ({"a": F4}, b"\0" * 5, "its tensors have 4 bytes, the file has 5 for them"),
    "cut": ({"a": F4}, b"\0" * 3, "its tensors have 4 bytes, the file has 3 for them"),
    "bool": ({"a": entry("BOOL", [2], 0, 2)}, b"\1\2", "'a': a bool is 0 or 1, got 2"),
    "ugly": ({"\n\ud800": 1}, b"", "'\\n\\ud800' should have dtype"),
}


@pytest.mark.parametrize("case", BROKEN)
def test_what_is_wrong_with_a_header_is_said(tmp_path: Path, case: str) -> None:
    header, data, message = BROKEN[case]
    assert message in failure(SafetensorsFile, safetensors(tmp_path / "a", header, data))


def test_a_header_that_claims_more_than_there_is_or_than_any_has_is_refused_unread(tmp_path: Path) -> None:
    (tmp_path / "a").write_bytes(struct.pack("<Q", 1 << 60) + b"{}")
    assert "got a length of 1152921504606846976 in a file of 10 bytes" in failure(SafetensorsFile, tmp_path / "a")
    assert "the most is 1048576" in failure(
        SafetensorsFile, safetensors(tmp_path / "b", b" " * (MOST_HEADER_BYTES + 1))
    )
    (tmp_path / "c").write_bytes(b"\0\0")
    assert "the length of the header should be 8 bytes" in failure(SafetensorsFile, tmp_path / "c")


@needs.PIPES
def test_a_path_that_is_no_file_is_refused(tmp_path: Path) -> None:
    refuse_what_is_no_file(SafetensorsFile, tmp_path)


@pytest.fixture(scope="module")
def small(tmp_path_factory: pytest.TempPathFactory) -> Path:
    header = {"a": entry("F32", [2, 3], 0, 24), "b": entry("BF16", [2], 24, 28), "c": entry("BOOL", [1], 28, 29)}
    return safetensors(tmp_path_factory.mktemp("small") / "a", header, bytes(29))


@given(edits=st.lists(st.tuples(st.integers(0, 400), st.integers(0, 255)), max_size=4), cut=st.integers(0, 400))
@settings(max_examples=300, suppress_health_check=[HealthCheck.function_scoped_fixture])
def test_whatever_is_changed_in_a_file_it_reads_or_gives_one_error(
    small: Path, tmp_path: Path, edits: list[tuple[int, int]], cut: int
) -> None:
    data = bytearray(small.read_bytes())
    for at, value in edits:
        data[at % len(data)] = value
    path = tmp_path / "a"
    path.write_bytes(data[: len(data) - cut % len(data)] if cut % 3 == 0 else data)
    for value in outcome(SafetensorsFile, path).values():
        assert isinstance(value, str) or value.size < 100
