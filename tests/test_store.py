"""A weights file comes back exactly as it was written, or not at all."""

import json
import os
import signal
import subprocess
import sys
import tracemalloc
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import Any

import h5py
import needs
import numpy as np
import numpy.typing as npt
import pytest

from resnet_ref.errors import WeightsError
from resnet_ref.weights import store
from resnet_ref.weights.description import Description

Arrays = dict[str, npt.NDArray[Any]]

ARRAYS: Arrays = {
    "net/conv1/weights": np.arange(2 * 3 * 5 * 7, dtype=np.float32).reshape(2, 3, 5, 7) / 7,
    "net/conv1/biases": np.array([-0.0, 1e-45, 3.4e38, -1.5, 2.25, 0.1, 1e-38], np.float32),
    "net/block1/unit_1/gamma": np.array([0.5], np.float32),
}
DESCRIPTION = Description(
    {"function": "resnet_v1_50", "num_classes": 3, "depth_multiplier": 0.125},
    {"name": "vgg", "height": 21},
    ("zwölf", "", "a\nb"),
    {"kind": "TensorFlow V2", "files": []},
    "the tests",
)


def shapes_of(arrays: Mapping[str, npt.NDArray[Any]] = ARRAYS) -> Callable[[Any], dict[str, tuple[int, ...]]]:
    return lambda network: {name: array.shape for name, array in arrays.items()}


def load(path: Path, arrays: Mapping[str, npt.NDArray[Any]] = ARRAYS) -> tuple[Arrays, Description]:
    return store.load(path, shapes_of(arrays))


def write(path: Path, arrays: Mapping[str, npt.NDArray[Any]] = ARRAYS, description: Description = DESCRIPTION) -> Path:
    """Without a seal, which would be what finds all that these tests do to a file."""
    store.write(path, arrays, arrays.__getitem__, description, version=1)
    return path


@pytest.fixture
def file(tmp_path: Path) -> Path:
    return write(tmp_path / "weights.h5")


@pytest.fixture(scope="module")
def content(tmp_path_factory: pytest.TempPathFactory) -> bytes:
    return write(tmp_path_factory.mktemp("store") / "weights.h5").read_bytes()


def test_arrays_and_description_come_back_bit_for_bit_and_in_the_networks_order(file: Path) -> None:
    arrays, description = load(file)
    assert list(arrays) == list(ARRAYS) != sorted(ARRAYS)
    for name, array in arrays.items():
        assert array.dtype == np.float32
        assert array.tobytes() == ARRAYS[name].tobytes()
    assert description == DESCRIPTION


def test_equal_content_gives_the_same_digest_whatever_the_order_of_names(tmp_path: Path, file: Path) -> None:
    other = write(tmp_path / "other.h5", dict(reversed(ARRAYS.items())))
    with h5py.File(file) as a, h5py.File(other) as b:
        assert a.attrs["sha256"] == b.attrs["sha256"]
        assert len(a.attrs["sha256"]) == 64


def test_anyone_can_read_the_file_with_h5py_as_little_endian_float32_under_fletcher32(file: Path) -> None:
    with h5py.File(file) as h5:
        assert h5.attrs["format"] == b"resnet-ref weights"
        assert h5.attrs["version"] == b"1"
        assert all(isinstance(text, np.bytes_) for text in h5.attrs.values())
        assert json.loads(h5.attrs["network"].decode()) == DESCRIPTION.network
        for name, array in ARRAYS.items():
            assert h5[name].fletcher32
            assert h5[name].compression is None
            assert h5[name].chunks == array.shape
            assert h5[name].dtype == np.dtype("<f4")
            np.testing.assert_array_equal(h5[name][()], array)


def test_an_array_beyond_h5pys_own_size_of_chunks_is_one_chunk_too(tmp_path: Path) -> None:
    arrays = {"a": np.ones((3, 3, 257, 511), np.float32)}
    with h5py.File(write(tmp_path / "w.h5", arrays)) as h5:
        assert h5["a"].chunks == (3, 3, 257, 511)
    assert list(load(tmp_path / "w.h5", arrays)[0]) == ["a"]


@pytest.mark.parametrize("dtype", ["float64", "float16", ">f4", "int32", "uint8"])
def test_numbers_of_any_real_dtype_and_layout_are_stored_as_float32(tmp_path: Path, dtype: str) -> None:
    array = np.asfortranarray(np.arange(12).reshape(3, 4).astype(dtype))[:, ::2]
    arrays, _ = load(write(tmp_path / "w.h5", {"a": array}), {"a": array})
    np.testing.assert_array_equal(arrays["a"], [[0, 2], [4, 6], [8, 10]])


def test_labels_beyond_hdf5s_64_kilobytes_per_attribute_come_back(tmp_path: Path) -> None:
    labels = tuple(f"class number {i} of many, ünicode" for i in range(5000))
    described = Description({}, labels=labels)
    assert load(write(tmp_path / "w.h5", description=described))[1].labels == labels


def attributes(file: Path, **changes: Any) -> None:
    with h5py.File(file, "r+") as h5:
        for name, value in changes.items():
            if value is None:
                del h5.attrs[name]
            else:
                h5.attrs[name] = np.bytes_(value.encode()) if isinstance(value, str) else value


def replaced(name: str, **dataset: Any) -> Callable[[h5py.File], None]:
    def edit(h5: h5py.File) -> None:
        del h5[name]
        h5.create_dataset(name, **dataset)

    return edit


def linked(name: str, link: Any) -> Callable[[h5py.File], None]:
    def edit(h5: h5py.File) -> None:
        del h5[name]
        h5[name] = link

    return edit


def value(name: str, number: float) -> Callable[[h5py.File], None]:
    def edit(h5: h5py.File) -> None:
        h5[name][-1] = number

    return edit


def virtual(h5: h5py.File) -> None:
    del h5["net/conv1/biases"]
    layout = h5py.VirtualLayout((7,), np.float32)
    layout[:] = h5py.VirtualSource("elsewhere.h5", "x", (7,))
    h5.create_virtual_dataset("net/conv1/biases", layout)


def deep(h5: h5py.File) -> None:
    h5.create_group("/".join("abcdefghijklmnopqrstuvwxyz"))


BIASES, GAMMA = "net/conv1/biases", "net/block1/unit_1/gamma"
EDITS: list[tuple[str, Callable[[h5py.File], Any], list[str]]] = [
    ("missing", lambda h5: h5.pop(BIASES), [f"{BIASES} [7] is missing"]),
    ("unexpected", replaced(GAMMA, data=np.ones(1, "<f4")), []),
    ("another", lambda h5: h5.create_dataset("net/x", data=[1.0]), ["net/x [1] is not a variable of the network"]),
    ("a long shape", replaced(BIASES, data=np.ones(8, "<f4")), [BIASES, "[8]", "expected [7]"]),
    ("another rank", replaced(BIASES, data=np.ones((7, 1), "<f4")), [BIASES, "[7, 1]", "expected [7]"]),
    ("a scalar", replaced(GAMMA, data=np.float32(1)), [GAMMA, "shape []", "expected [1]"]),
    ("no dataspace", replaced(GAMMA, data=h5py.Empty("<f4")), [GAMMA, "expected [1]"]),
    ("float64", replaced(BIASES, data=np.ones(7)), [BIASES, "float64", "float32"]),
    ("big-endian", replaced(BIASES, data=np.ones(7, ">f4")), [BIASES, ">f4", "little-endian float32"]),
    ("integers", replaced(BIASES, data=np.ones(7, "<i4")), [BIASES, "int32", "float32"]),
    ("text", replaced(BIASES, data=["a"] * 7), [BIASES, "object", "float32"]),
    ("a record", replaced(BIASES, data=np.ones(7, [("a", "<f4")])), [BIASES, "float32"]),
    ("compressed", replaced(BIASES, data=np.zeros(7, "<f4"), compression="gzip"), [BIASES, "compressed"]),
    ("never written", replaced(BIASES, shape=(7,), dtype="<f4", chunks=(7,)), [BIASES, "incomplete"]),
    ("a soft link", linked(BIASES, h5py.SoftLink("/net/conv1/weights")), [BIASES, "link"]),
    ("an external link", linked(BIASES, h5py.ExternalLink("/etc/passwd", "/x")), [BIASES, "link"]),
    ("a named type", linked(BIASES, np.dtype("<f4")), [BIASES, "neither a plain group nor a plain dataset"]),
    ("a virtual dataset", virtual, [BIASES, "neither a plain group nor a plain dataset"]),
    (
        "external storage",
        replaced(BIASES, shape=(7,), dtype="<f4", external=[("/etc/passwd", 0, 28)]),
        [BIASES, "neither a plain group nor a plain dataset"],
    ),
    ("deep groups", deep, ["neither"]),
    ("a group that holds itself", lambda h5: h5["net"].__setitem__("net", h5["net"]), ["neither"]),
    ("NaN", value(BIASES, np.nan), [f"{BIASES} holds nan at [6]"]),
    ("infinity", value(BIASES, -np.inf), [f"{BIASES} holds -inf at [6]"]),
    ("another number", value(BIASES, 5), ["damaged", "SHA-256"]),
]


@pytest.mark.parametrize(("edit", "said"), [pytest.param(e, s, id=n) for n, e, s in EDITS])
def test_an_edited_file_is_refused_in_one_line_that_names_file_and_variable(
    file: Path, edit: Callable[[h5py.File], Any], said: list[str]
) -> None:
    with h5py.File(file, "r+") as h5:
        edit(h5)
    with pytest.raises(WeightsError) as caught:
        load(file)
    for piece in (str(file), *said):
        assert piece in str(caught.value)
    assert "\n" not in str(caught.value)


VARIABLE, FIXED = h5py.string_dtype(), h5py.string_dtype("utf-8", 9)
ANOTHER_FORMAT = "'format' should be 'resnet-ref weights', and it is: "
DAMAGED = "is damaged: HDF5 cannot read it ("
UNREADABLE = "is damaged: its description cannot be read ("
ATTRIBUTES: list[tuple[dict[str, Any], str]] = [
    ({"version": "2"}, "format version '2', this resnet-ref reads 1; use a newer resnet-ref"),
    ({"version": ""}, "format version '', this resnet-ref reads 1"),
    ({"version": None}, "can't locate attribute: 'version'"),
    ({"version": 1}, f"{DAMAGED}attribute 'version' is no text of fixed length"),
    ({"version": np.array([1, 2])}, f"{DAMAGED}attribute 'version' is no text of fixed length"),
    ({"format": None}, "can't locate attribute: 'format'"),
    ({"format": "keras"}, f"{ANOTHER_FORMAT}'keras'"),
    ({"format": 3}, f"{ANOTHER_FORMAT}attribute 'format' is no text of fixed length"),
    ({"format": np.array("resnet-ref weights", VARIABLE)}, f"{ANOTHER_FORMAT}attribute 'format' is no text"),
    ({"network": None}, "can't locate attribute: 'network'"),
    ({"network": "{"}, f"{UNREADABLE}Expecting property name"),
    ({"network": "[]"}, "network is list"),
    ({"network": "[" * 100_000}, f"{UNREADABLE}maximum recursion depth"),
    ({"network": np.bytes_(b"\xff\xfe")}, f"{DAMAGED}'utf-8' codec can't decode byte 0xff"),
    ({"network": np.array('{"function":"resnet_v1_50"}', VARIABLE)}, "'network' is no text of fixed length"),
    ({"network": np.array([b"{}"], FIXED)}, f"{DAMAGED}attribute 'network' is no text of fixed length"),
    ({"network": h5py.Empty(FIXED)}, f"{DAMAGED}attribute 'network' is no text of fixed length"),
    ({"network": 5}, f"{DAMAGED}attribute 'network' is no text of fixed length"),
    ({"network": '{"function":"resnet_v1_101"}'}, "SHA-256"),
    ({"labels": '"text"'}, "labels is str"),
    ({"labels": "[1]"}, "other than text"),
    ({"preprocessing": "7"}, "preprocessing is int"),
    ({"written_by": "null"}, "written_by is NoneType"),
    ({"sha256": None}, "can't locate attribute: 'sha256'"),
    ({"sha256": "7"}, "it says '7'"),
    ({"sha256": 7}, f"{DAMAGED}attribute 'sha256' is no text of fixed length"),
    ({"sha256": np.array(["a", "b"], VARIABLE)}, f"{DAMAGED}attribute 'sha256' is no text of fixed length"),
]


@pytest.mark.parametrize(("changes", "said"), ATTRIBUTES)
def test_a_wrong_description_is_refused_in_one_line(file: Path, changes: dict[str, Any], said: str) -> None:
    attributes(file, **changes)
    with pytest.raises(WeightsError) as caught:
        load(file)
    assert said in str(caught.value)
    assert str(file) in str(caught.value)
    assert "\n" not in str(caught.value)
    assert len(str(caught.value)) < 700


def test_not_a_weights_file_is_refused_with_advice(tmp_path: Path) -> None:
    (text := tmp_path / "text.h5").write_text("hello")
    (empty := tmp_path / "empty.h5").touch()
    for path, said in [
        (tmp_path, "is a directory"),
        (tmp_path / "none.h5", "No such file"),
        (text, "is no HDF5 file: it begins with 68 65 6c 6c 6f"),
        (empty, "is no HDF5 file"),
        (text / "below", "Not a directory"),
    ]:
        with pytest.raises(WeightsError, match=said):
            load(path)


HUGE, SQUARE = (1 << 10, 1 << 19), (1 << 20, 1 << 20)
SEVERAL = "a is compressed or in several chunks"


@pytest.mark.parametrize(
    ("shape", "storage", "said"),
    [
        (HUGE, {"chunks": HUGE, "fletcher32": True}, "a is incomplete, expected 2147483648 bytes"),
        (HUGE, {"chunks": HUGE}, "a is incomplete, expected 2147483648 bytes"),
        (SQUARE, {}, "a is incomplete, expected 4398046511104 bytes"),
        (SQUARE, {"chunks": (1024, 1024), "fletcher32": True}, SEVERAL),
        (SQUARE, {"chunks": (1024, 1024), "compression": "gzip"}, SEVERAL),
    ],
    ids=["one chunk", "one bare chunk", "contiguous", "chunks", "compressed chunks"],
)
def test_a_dataset_that_claims_a_huge_size_allocates_nothing_even_where_the_network_agrees(
    file: Path, shape: tuple[int, int], storage: dict[str, Any], said: str
) -> None:
    with h5py.File(file, "r+") as h5:
        del h5["net"]
        h5.create_dataset("a", shape, "<f4", **storage)
    tracemalloc.start()
    try:
        with pytest.raises(WeightsError, match=said):
            store.load(file, lambda network: {"a": shape})
        assert tracemalloc.get_traced_memory()[1] < 5_000_000
    finally:
        tracemalloc.stop()


@pytest.mark.parametrize(
    "storage",
    [
        {"chunks": (1 << 22,), "maxshape": (None,), "compression": "gzip"},
        {"chunks": (1 << 22,), "maxshape": (None,), "fletcher32": True},
        {"chunks": (4,), "fletcher32": True},
        {"chunks": (7,), "compression": "gzip"},
        {"chunks": (7,), "compression": "lzf"},
    ],
    ids=["huge and compressed", "huge", "two chunks", "gzip", "lzf"],
)
def test_right_numbers_in_other_chunks_or_compressed_are_refused_before_they_are_unpacked(
    file: Path, storage: dict[str, Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    with h5py.File(file, "r+") as h5:
        del h5[BIASES]
        h5.create_dataset(BIASES, data=ARRAYS[BIASES], **storage)
    monkeypatch.setattr(np, "fromfile", lambda *arguments: pytest.fail("data was read"))
    with pytest.raises(WeightsError, match=f"{BIASES} is compressed or in several chunks"):
        load(file)


def flips(content: bytes) -> Iterator[tuple[int, bytes]]:
    """The file with one bit flipped, a different one in each byte that is not zero and in some that are."""
    bits = np.random.default_rng(5).integers(0, 8, len(content))
    for position in range(len(content)):
        if content[position] or position % 16 == 0:
            flipped = bytearray(content)
            flipped[position] ^= 1 << int(bits[position])
            yield position, bytes(flipped)


def survey(folder: Path) -> None:
    """Print what becomes of each flip; meant for a process of its own, which a load that never ends ends."""
    outcomes: dict[str, list[int]] = {"refused": [], "same": []}
    content = write(folder / "weights.h5").read_bytes()
    for position, flipped in flips(content):
        (folder / "flipped.h5").write_bytes(flipped)
        signal.alarm(100)
        try:
            arrays, description = load(folder / "flipped.h5")
            same = description == DESCRIPTION and all(arrays[n].tobytes() == a.tobytes() for n, a in ARRAYS.items())
            outcome = "same" if same else "changed"
        except WeightsError:
            outcome = "refused"
        except Exception as error:
            outcome = repr(error)
        outcomes.setdefault(outcome, []).append(position)
    print(json.dumps(outcomes))


@needs.ALARM
def test_a_flipped_bit_anywhere_is_refused_or_changes_nothing(tmp_path: Path) -> None:
    script = "import sys, pathlib, test_store; test_store.survey(pathlib.Path(sys.argv[1]))"
    command = [sys.executable, "-c", script, str(tmp_path)]
    done = subprocess.run(command, cwd=Path(__file__).parent, capture_output=True, text=True, timeout=600, check=False)
    assert (done.returncode, done.stderr) == (0, "")
    outcomes = json.loads(done.stdout)
    assert set(outcomes) == {"refused", "same"}, {k: v for k, v in outcomes.items() if k not in ("refused", "same")}
    visible = sum(array.nbytes for array in ARRAYS.values()) + sum(map(len, DESCRIPTION.to_attributes().values()))
    assert len(outcomes["refused"]) > visible


def test_the_digest_covers_names_and_shapes_beside_the_bytes(tmp_path: Path) -> None:
    array = np.arange(6, dtype=np.float32)
    digests = set()
    for name, shape in (("a", (2, 3)), ("a", (3, 2)), ("a", (6,)), ("b", (2, 3))):
        with h5py.File(write(tmp_path / "w.h5", {name: array.reshape(shape)})) as h5:
            digests.add(h5.attrs["sha256"])
    assert len(digests) == 4


def test_a_file_cut_off_anywhere_is_refused(tmp_path: Path, content: bytes) -> None:
    path = tmp_path / "cut.h5"
    for length in {*range(0, len(content), 37), *range(len(content) - 9, len(content))}:
        path.write_bytes(content[:length])
        with pytest.raises(WeightsError):
            load(path)


@pytest.mark.parametrize(
    ("name", "array", "said"),
    [
        ("a", np.array([1, np.nan]), "holds nan at [1]"),
        ("a", np.array([[0, 1], [np.inf, 2]]), "holds inf at [1, 0]"),
        ("a", np.array([1e39]), "holds inf at [0]"),
        ("a", np.array([1j]), "complex128"),
        ("a", np.array(["x"]), "numbers"),
        ("a", np.array([True]), "bool"),
        ("a", np.array([None]), "object"),
        ("a", np.array(3.0), "at least one axis"),
        ("a", np.empty((0, 3)), "[0, 3]"),
        ("", np.ones(1), "name"),
        ("/a", np.ones(1), "name"),
        ("a//b", np.ones(1), "name"),
        ("a/../b", np.ones(1), "name"),
        ("a/.", np.ones(1), "name"),
        ("a\0b", np.ones(1), "name"),
    ],
)
def test_what_cannot_be_loaded_is_not_written(tmp_path: Path, name: str, array: Any, said: str) -> None:
    with pytest.raises(WeightsError) as caught:
        write(tmp_path / "w.h5", {name: array})
    assert said in str(caught.value)
    assert os.listdir(tmp_path) == []
