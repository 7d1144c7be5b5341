"""Weights files that are damaged, or made to do harm: what becomes of each, and how much memory that takes.

What test_store proves of the HDF5 inside (version 1) holds for a sealed file (version 2) whose seal was made to fit.
"""

import os
import signal
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import h5py
import needs
import numpy as np
import pytest
from test_store import ARRAYS, BIASES, DESCRIPTION, EDITS, GAMMA, load, replaced, shapes_of

from resnet_ref import load_weights
from resnet_ref.errors import RecordingError, WeightsError
from resnet_ref.recording import open_recording
from resnet_ref.weights import contents, plain_file, seal, store

Edit = Callable[[h5py.File], Any]
SAID = "is damaged: its bytes do not have the SHA-256 that its first lines say; take it from its source again"


@pytest.fixture
def file(tmp_path: Path) -> Path:
    store.write(tmp_path / "w.h5", ARRAYS, ARRAYS.__getitem__, DESCRIPTION)
    return tmp_path / "w.h5"


def sealed(path: Path, edit: Edit) -> Path:
    """The file edited and its seal made to fit: what somebody does on purpose."""
    with h5py.File(path, "r+") as h5:
        edit(h5)
    with open(path, "r+b") as raw:
        made = seal.seal(raw)  # type: ignore[arg-type]
        raw.seek(0)
        raw.write(made)
    return path


def refused(path: Path, *said: str) -> str:
    with pytest.raises(WeightsError) as caught:
        load(path)
    message = str(caught.value)
    for piece in (str(path), *said):
        assert piece in message
    assert "\n" not in message
    assert len(message) < 700
    return message


def no_hdf5(*arguments: Any, **options: Any) -> None:
    pytest.fail("libhdf5 was given the file")


def test_a_file_says_in_text_what_it_is_and_anyone_can_verify_that(file: Path) -> None:
    first = file.read_bytes()[:512].decode().splitlines()
    checked = subprocess.run(f"tail -c +513 {file} | sha256sum", shell=True, capture_output=True, text=True, check=True)
    size = file.stat().st_size
    assert first[:4] == ["resnet-ref sealed HDF5", "version 2", f"bytes {size}", f"sha256 {checked.stdout.split()[0]}"]
    assert not any(first[4:])


def test_a_flip_of_any_byte_is_refused_before_libhdf5_sees_any(file: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Every byte there is, each with another bit, and then with all of them."""
    content = file.read_bytes()
    assert load(file)[1] == DESCRIPTION
    monkeypatch.setattr(h5py, "File", no_hdf5)
    said = set()
    with file.open("r+b", buffering=0) as raw:
        for position, byte in enumerate(content):
            for changed in (byte ^ 1 << position % 8, byte ^ 0xFF):
                raw.seek(position)
                raw.write(bytes([changed]))
                with pytest.raises(WeightsError) as caught:
                    load(file)
                said.add(str(caught.value).removeprefix(f"{file} ").split(";")[0].split(":")[0])
            raw.seek(position)
            raw.write(bytes([byte]))
    assert {"is damaged", "is no HDF5 file"} <= said
    assert all(line in ("is damaged", "is no HDF5 file") or "has format version" in line for line in said)
    monkeypatch.undo()
    assert load(file)[1] == DESCRIPTION


def test_what_is_cut_off_or_appended_anywhere_is_refused_before_libhdf5_sees_it(
    file: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    content = file.read_bytes()
    monkeypatch.setattr(h5py, "File", no_hdf5)
    for length in range(0, len(content), 97):
        file.write_bytes(content[:length])
        refused(file)
    file.write_bytes(content + b"\0")
    refused(file, f"it has {len(content) + 1:,} bytes, and it says {len(content):,}")


def test_an_empty_file_is_called_empty(file: Path) -> None:
    file.write_bytes(b"")
    refused(file, "is no HDF5 file: it is empty; ")


def test_other_seals_are_refused_in_words(file: Path) -> None:
    content = file.read_bytes()
    for old, new, said in [
        (b"version 2", b"version 3", "has format version 3, this resnet-ref reads 2; use a newer resnet-ref"),
        (b"version 2", b"version 1", SAID),
        (b"version 2", b"version 9999999999", "is damaged"),
        (b"sha256 ", b"sha257 ", SAID),
        (b"sealed HDF5", b"sealed HDF6", "is no HDF5 file: it begins with 72 65 73"),
        (content[:512], content[:512] * 2, "it has "),
    ]:
        file.write_bytes(content.replace(old, new, 1))
        refused(file, said)


def test_the_hdf5_in_a_sealed_file_is_a_file_of_version_1_and_still_read(file: Path) -> None:
    file.write_bytes(file.read_bytes()[512:])
    arrays, description = load(file)
    assert description == DESCRIPTION
    assert all(arrays[name].tobytes() == ARRAYS[name].tobytes() for name in ARRAYS)


def survey(file: Path) -> None:
    """Print what becomes of a file of version 1 with one bit flipped, for the bytes that test_store passes over."""
    content = file.read_bytes()[512:]
    outcomes = set()
    flipped = bytearray(content)
    for position in range(len(content)):
        if content[position] or position % 16 == 0:
            continue
        flipped[position] = 1 << position % 8
        file.write_bytes(flipped)
        flipped[position] = 0
        signal.alarm(100)
        try:
            arrays, description = load(file)
            same = description == DESCRIPTION and all(arrays[n].tobytes() == a.tobytes() for n, a in ARRAYS.items())
            outcomes.add("same" if same else f"changed by {position}")
        except WeightsError:
            outcomes.add("refused")
    print(sorted(outcomes))


@needs.ALARM
@pytest.mark.slow
def test_a_flip_of_any_zero_byte_of_a_file_of_version_1_is_refused_or_changes_nothing(file: Path) -> None:
    script = "import os, sys, pathlib; sys.path[0] = os.getcwd(); import test_hostile_hdf5 as t; "
    script += "t.survey(pathlib.Path(sys.argv[1]))"
    command = [sys.executable, "-c", script, str(file)]
    done = subprocess.run(command, cwd=Path(__file__).parent, capture_output=True, text=True, timeout=600, check=False)
    assert (done.returncode, done.stderr) == (0, "")
    assert done.stdout in ("['refused']\n", "['refused', 'same']\n")


def test_a_file_that_changes_while_it_is_read_is_refused(file: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    really = h5py.File

    times = iter(range(1, 99))

    def touched(path: Path, mode: str, **options: Any) -> h5py.File:
        os.utime(path, (next(times),) * 2)
        return really(path, mode, **options)

    monkeypatch.setattr(h5py, "File", touched)
    refused(file, "was changed whenever it was read; try again when nobody writes it")
    monkeypatch.undo()

    def shapes(network: Any) -> dict[str, tuple[int, ...]]:
        os.utime(file, (1, 1))
        return shapes_of()(network)

    with pytest.raises(WeightsError, match="was changed while it was read; try again when nobody writes it"):
        store.load(file, shapes)


@pytest.mark.parametrize("version", [1, 2])
def test_an_hdf5_that_counts_from_the_end_of_the_seal_gives_the_same_numbers(
    tmp_path: Path, version: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    """As releases before 1.14.4 do; this one is made to, or not to where it does."""
    store.write(tmp_path / "w.h5", ARRAYS, ARRAYS.__getitem__, DESCRIPTION, version)
    told, really = contents.told_from_the_seal_on(), contents._told
    way = 1 if told else -1
    monkeypatch.setattr(contents, "_told", lambda found: really(found) + way * found.file.userblock_size)
    contents.told_from_the_seal_on.cache_clear()
    try:
        assert contents.told_from_the_seal_on() is not told
        arrays, _ = load(tmp_path / "w.h5")
    finally:
        contents.told_from_the_seal_on.cache_clear()
    assert all(arrays[name].tobytes() == ARRAYS[name].tobytes() for name in ARRAYS)


@pytest.mark.parametrize("place", [None, 1 << 62, 1 << 63, (1 << 64) - 2])
def test_a_place_outside_the_file_is_refused_whatever_libhdf5_says(file: Path, place: int | None) -> None:
    last = file.stat().st_size - ARRAYS[BIASES].nbytes

    def saying(offset: int) -> Callable[[str], contents.Contents]:
        found = contents.contents(str(file))
        arrays = {**found.arrays, BIASES: found.arrays[BIASES]._replace(offset=offset)}
        return lambda path: found._replace(arrays=arrays)

    assert store.load(file, shapes_of(), saying(last))[0][BIASES].tobytes() == file.read_bytes()[last:]
    with pytest.raises(WeightsError, match=f"{BIASES} does not lie in the file"):
        store.load(file, shapes_of(), saying(last + 1 if place is None else place))


# What who makes the seal fit may do: other numbers in the network's own shapes, and another layout of its bytes.
UNSEEN = ("another number", "unexpected")


@pytest.mark.parametrize(("edit", "said"), [pytest.param(e, s, id=n) for n, e, s in EDITS if n not in UNSEEN])
def test_a_seal_made_to_fit_does_not_hide_what_is_wrong_inside(file: Path, edit: Edit, said: list[str]) -> None:
    refused(sealed(file, edit), *said)


def custom_float(name: str, exponent: int, mantissa: int) -> Edit:
    """A dataset of floats of another kind, such as bfloat16: 8 bits of exponent, 7 of mantissa."""

    def edit(h5: h5py.File) -> None:
        kind = h5py.h5t.IEEE_F32LE.copy()
        kind.set_fields(exponent + mantissa, mantissa, exponent, 0, mantissa)
        kind.set_precision(1 + exponent + mantissa)
        kind.set_size(2)
        kind.set_ebias(2 ** (exponent - 1) - 1)
        del h5[name]
        space = h5py.h5s.create_simple((7,))
        h5py.h5d.create(h5.id, name.encode(), kind, space)

    return edit


def of_references(kind: Any) -> Edit:
    def edit(h5: h5py.File) -> None:
        target = h5["net/conv1/weights"]
        value = target.ref if kind is h5py.ref_dtype else target.regionref[0]
        del h5[BIASES]
        made = h5.create_dataset(BIASES, (7,), kind)
        made[0] = value

    return edit


def pipeline(number: int) -> Edit:
    """A dataset behind a filter of that number: others than gzip, lzf and szip h5py does not call compression."""

    def edit(h5: h5py.File) -> None:
        del h5[BIASES]
        made = h5py.h5p.create(h5py.h5p.DATASET_CREATE)
        made.set_chunk((7,))
        made.set_filter(number, h5py.h5z.FLAG_OPTIONAL)
        h5py.h5d.create(h5.id, BIASES.encode(), h5py.h5t.IEEE_F32LE, h5py.h5s.create_simple((7,)), made)
        h5[BIASES][:] = ARRAYS[BIASES]

    return edit


def knot(h5: h5py.File) -> None:
    """Groups that hold each other: 20 names at each of 16 levels, more than 10^20 in all."""
    for number in range(20):
        h5["net"][f"again{number}"] = h5["net"]


def chain(h5: h5py.File) -> None:
    """No circle, and 10^15 names all the same."""
    group = h5["net"]
    for _ in range(15):
        below = group.create_group("0")
        for number in range(1, 10):
            group[str(number)] = below
        group = below


def long_attribute(h5: h5py.File) -> None:
    del h5.attrs["labels"]
    h5.attrs["labels"] = np.bytes_(b'["' + b"a" * (60 << 20) + b'"]')


def many(h5: h5py.File) -> None:
    group = h5.create_group("many").id
    for number in range(70_000):
        h5py.h5g.create(group, b"%d" % number)


HOSTILE: list[tuple[str, Edit, list[str]]] = [
    ("float16", replaced(BIASES, data=np.ones(7, "<f2")), [BIASES, "float16", "expected little-endian float32"]),
    ("bfloat16", custom_float(BIASES, 8, 7), [BIASES, "another float of 2 bytes, expected float32"]),
    ("another 16 bits", custom_float(BIASES, 6, 9), [BIASES, "another float of 2 bytes, expected float32"]),
    ("object references", of_references(h5py.ref_dtype), [BIASES, "object", "float32"]),
    ("region references", of_references(h5py.regionref_dtype), [BIASES, "object", "float32"]),
    ("ragged rows", replaced(BIASES, shape=(7,), dtype=h5py.vlen_dtype("<f4")), [BIASES, "object", "float32"]),
    ("rows in each", replaced(GAMMA, shape=(1,), dtype=np.dtype(("<f4", (1,)))), [GAMMA, "float32"]),
    ("an enum", replaced(BIASES, shape=(7,), dtype=h5py.enum_dtype({"a": 1}, "i4")), [BIASES, "int32"]),
    ("opaque", replaced(BIASES, data=np.zeros(7, "V4")), [BIASES, "|V4", "float32"]),
    ("complex", replaced(BIASES, data=np.zeros(7, "<c8")), [BIASES, "complex64", "float32"]),
    ("bool", replaced(BIASES, data=np.zeros(7, bool)), [BIASES, "bool", "float32"]),
    ("shuffled", pipeline(h5py.h5z.FILTER_SHUFFLE), [BIASES, "is compressed or in several chunks"]),
    ("nbit", pipeline(h5py.h5z.FILTER_NBIT), [BIASES, "is compressed or in several chunks"]),
    ("no axes of size", replaced(BIASES, shape=(0,), dtype="<f4"), [BIASES, "[0]", "expected [7]"]),
    ("32 axes", replaced(BIASES, shape=(1,) * 32, dtype="<f4"), [BIASES, "expected [7]"]),
    ("a knot", knot, ["has another name too; such a file is neither so large nor knotted"]),
    ("a chain", chain, ["has another name too"]),
    ("two names", lambda h5: h5["net"].__setitem__("b", h5[BIASES]), ["has another name too"]),
    ("a long attribute", long_attribute, ["attribute 'labels' has 62,914,564 bytes, more than 2,097,152"]),
    ("many groups", many, ["is one of more than 65,536 groups and datasets"]),
]


@pytest.mark.parametrize(("edit", "said"), [pytest.param(e, s, id=n) for n, e, s in HOSTILE])
def test_what_is_made_to_do_harm_is_refused_in_one_line(file: Path, edit: Edit, said: list[str]) -> None:
    refused(sealed(file, edit), *said)


@pytest.mark.parametrize("version", [1, 2])
def test_a_description_too_long_to_be_read_back_is_not_written(tmp_path: Path, version: int) -> None:
    for said, labels, source in (
        ("its description has 9,437,200 characters, more than 3,145,728; shorten", "a" * (9 << 20), None),
        ("labels takes 2,097,156 bytes as text, more than 2,097,152; shorten it", "a" * (2 << 20), None),
        ("its description has 3,800,023 characters", "a" * 1_900_000, {"kind": "b" * 1_900_000}),
    ):
        described = store.Description({}, labels=(labels,), source=source)
        with pytest.raises(WeightsError, match=said):
            store.write(tmp_path / "w.h5", ARRAYS, ARRAYS.__getitem__, described, version)
    assert os.listdir(tmp_path) == []


@needs.PIPES
@pytest.mark.parametrize(("read", "error"), [(load_weights, WeightsError), (open_recording, RecordingError)])
def test_a_path_that_is_no_file_is_refused_without_waiting_for_it(tmp_path: Path, read: Any, error: Any) -> None:
    os.mkfifo(tmp_path / "pipe.h5")
    (tmp_path / "loop.h5").symlink_to(tmp_path / "loop.h5")
    for path, said in [
        (tmp_path / "pipe.h5", "is a pipe, socket or device; copy its content into a file"),
        (Path("/dev/zero"), "is a pipe, socket or device"),
        (tmp_path, "is a directory"),
        (tmp_path / "loop.h5", "Too many levels of symbolic links"),
        (tmp_path / "a\0b.h5", "embedded null (byte|character in path)"),
    ]:
        with pytest.raises(error, match=said) as caught, _entered(read(path)):
            pass
        assert str(path) in str(caught.value)


class _entered:  # noqa: N801
    """A context manager's block, or nothing for what is none."""

    def __init__(self, value: Any) -> None:
        self.value = value

    def __enter__(self) -> None:
        if hasattr(self.value, "__enter__"):
            self.value.__enter__()

    def __exit__(self, *_: object) -> None: ...


def test_a_file_that_may_not_be_read_is_refused(file: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(path: Path) -> None:
        raise PermissionError(13, "Permission denied")

    monkeypatch.setattr(plain_file.io, "FileIO", refuse)
    refused(file, "cannot read", "Permission denied")
