"""Recordings: what is written is read again, samples lie where they say, and damage is one clear error."""

import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import h5py
import numpy as np
import pytest
from recordings import prepared, record_definition

from resnet_ref import RecordingError, load_weights
from resnet_ref.recording import digest, open_recording, sample_positions
from resnet_ref.weights.hdf5 import write_text


def read_all(path: Path) -> tuple[Any, list[Any]]:
    """Facts, and every array there is."""
    with open_recording(path) as recording:
        arrays = [recording.inputs(), *(np.frombuffer(recording.image(i), np.uint8) for i in range(3))]
        return recording.facts, arrays + [recording.read(name).values for name in recording.end_points]


@pytest.fixture(scope="module")
def whole(tmp_path_factory: pytest.TempPathFactory, tiny_file: Path, photos: list[Path]) -> Path:
    return record_definition(tmp_path_factory.mktemp("whole") / "r.h5", load_weights(tiny_file), photos)


@pytest.fixture(scope="module")
def sampled(tmp_path_factory: pytest.TempPathFactory, tiny_file: Path, photos: list[Path]) -> Path:
    return record_definition(tmp_path_factory.mktemp("sampled") / "r.h5", load_weights(tiny_file), photos, sample=30)


@pytest.fixture
def copy(whole: Path, tmp_path: Path) -> Path:
    path = tmp_path / "copy.h5"
    path.write_bytes(whole.read_bytes())
    return path


def test_a_recording_holds_files_arrays_end_points_and_facts(whole: Path, tiny_file: Path, photos: list[Path]) -> None:
    weights = load_weights(tiny_file)
    with open_recording(whole) as recording:
        assert recording.network == weights.network
        assert next(iter(recording.end_points)) == "tiny/conv1"
        assert list(recording.end_points)[-1] == "predictions"
        assert recording.image(2) == photos[2].read_bytes()
        np.testing.assert_array_equal(recording.inputs(), prepared(weights, photos))
        facts = recording.facts
        assert [image["name"] for image in facts.images] == [photo.name for photo in photos]
        assert facts.labels == list(weights.labels or ())
        assert facts.variables["tiny/conv1/weights"]["sha256"] == digest(weights["tiny/conv1/weights"])
        assert set(facts.variables) == set(weights)


def test_a_sample_lies_at_fixed_positions_of_the_whole(whole: Path, sampled: Path) -> None:
    with open_recording(whole) as a, open_recording(sampled) as b:
        assert a.end_points == b.end_points
        for name, shape in a.end_points.items():
            everything, some = a.read(name), b.read(name)
            assert everything.positions is None
            assert everything.values.size == np.prod(shape)
            if everything.values.size <= 30:
                assert some.positions is None
            else:
                assert some.positions is not None
                assert len(set(some.positions)) == 30
            np.testing.assert_array_equal(some.values, some.of(everything.values.reshape(shape)))


def test_positions_are_the_same_every_time_and_differ_by_name() -> None:
    first, again = sample_positions("a", 1000, 50), sample_positions("a", 1000, 50)
    other = sample_positions("b", 1000, 50)
    assert first is not None
    np.testing.assert_array_equal(first, again)
    assert (first != other).any()
    assert sample_positions("a", 50, 50) is None


@pytest.mark.parametrize("key", ["inputs", "images/1", "end_points", "positions"])
def test_a_changed_value_anywhere_is_found_when_it_is_read(sampled: Path, tmp_path: Path, key: str) -> None:
    path = tmp_path / "r.h5"
    path.write_bytes(sampled.read_bytes())
    with h5py.File(path, "r+") as file:
        item = file[key]
        dataset = item if isinstance(item, h5py.Dataset) else next(iter(item.values()))
        values = dataset[...]
        values.flat[3] += 1
        dataset[...] = values
    with pytest.raises(RecordingError, match="SHA-256"):
        read_all(path)


def test_a_flipped_bit_in_any_byte_is_an_error_or_changes_nothing(copy: Path) -> None:
    """What a flip may change without being found is HDF5's own padding; never a number or a fact."""
    good = copy.read_bytes()
    facts, arrays = read_all(copy)
    rng = np.random.default_rng(3)
    refused = []
    for at in rng.choice(len(good), 150, replace=False):
        bad = bytearray(good)
        bad[at] ^= 1 << int(rng.integers(8))
        copy.write_bytes(bytes(bad))
        try:
            read_facts, read = read_all(copy)
        except RecordingError as error:
            refused.append(str(error))
            continue
        assert read_facts == facts
        for a, b in zip(arrays, read, strict=True):
            np.testing.assert_array_equal(a, b)
    assert len(refused) > 100
    assert not any("\n" in message for message in refused)


@pytest.mark.parametrize("kept", [0, 1, 7, 8, 100, 2000, -1])
def test_a_truncated_recording_is_refused_in_one_line(copy: Path, kept: int) -> None:
    data = copy.read_bytes()
    copy.write_bytes(data[:kept])
    with pytest.raises(RecordingError) as caught, open_recording(copy):
        pass
    assert str(copy) in str(caught.value)
    assert "\n" not in str(caught.value)


def test_what_is_no_recording_is_refused_in_one_line(tmp_path: Path, tiny_file: Path, whole: Path) -> None:
    text = tmp_path / "text.h5"
    text.write_text("hello, this is no HDF5")
    for path, said in (
        (tmp_path, "is a directory"),
        (tmp_path / "none.h5", "cannot read"),
        (text, "is no HDF5 file"),
        (tiny_file, "'format' should be 'resnet-ref recording', and it is: 'resnet-ref weights'"),
    ):
        with pytest.raises(RecordingError, match=said), open_recording(path):
            pass


def rewritten(path: Path, change: Any) -> None:
    """The facts changed, and their SHA-256 made to fit: what somebody does on purpose."""
    import hashlib

    with h5py.File(path, "r+") as file:
        facts = json.loads(bytes(file.attrs["facts"]))
        change(facts)
        text = json.dumps(facts)
        for name in ("facts", "sha256"):
            del file.attrs[name]
        write_text(file, "facts", text)
        write_text(file, "sha256", hashlib.sha256(text.encode()).hexdigest())


HOSTILE: list[Any] = [
    lambda f: f.clear(),
    lambda f: f.update(more=1),
    lambda f: f.update(end_points=7),
    lambda f: f.update(end_points=[7]),
    lambda f: f["end_points"][0].update(shape=[10**9, 10**9]),
    lambda f: f["end_points"][0].update(shape=[-1]),
    lambda f: f["end_points"][0].update(shape="12"),
    lambda f: f["end_points"][0].update(name=7),
    lambda f: f["end_points"][0].update(name="another"),
    lambda f: f["end_points"][0].update(positions_sha256="7"),
    lambda f: f["end_points"].pop(),
    lambda f: f["inputs"].update(shape=[3, 29, 26, 10**8]),
    lambda f: f["images"].append({"name": "x", "sha256": ""}),
    lambda f: f.update(network={"function": "resnet_v9"}),
    lambda f: f.update(network=[]),
    lambda f: f.update(variables=3),
    lambda f: f["inputs"].pop("sha256"),
    lambda f: f["inputs"].update(shape=[5]),
    lambda f: f["inputs"].update(shape=[0, 29, 26, 3]),
    lambda f: f["end_points"].__setitem__(1, f["end_points"][0]),
    lambda f: f["end_points"][0].pop("sha256"),
    lambda f: f["variables"].update(v={"shape": [1]}),
    lambda f: f.pop("sample"),
    lambda f: f.update(sample=0),
    lambda f: f.update(sample=True),
    lambda f: f.update(labels=[7]),
    lambda f: f.update(versions={"numpy": 2}),
    lambda f: f.update(source=None),
]


@pytest.mark.parametrize("number", range(len(HOSTILE)))
def test_facts_that_do_not_fit_are_refused_in_one_line(copy: Path, number: int) -> None:
    rewritten(copy, HOSTILE[number])
    with pytest.raises(RecordingError) as caught:
        read_all(copy)
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize(
    ("change", "said"),
    [
        (lambda f: f["inputs"].pop("sha256"), "inputs is {'shape': [3, 29, 26, 3]}, expected shape [N, H, W, C] and"),
        (lambda f: f["end_points"].append(f["end_points"][0]), "there are two end points 'tiny/"),
        (lambda f: f.update(hello=1), "'hello' is no fact"),
        (lambda f: f.pop("network"), "'network' is missing"),
        (lambda f: f.update(sample=-3), "sample is -3, expected a number of at least 1, or null"),
    ],
)
def test_what_is_wrong_with_facts_is_said(copy: Path, change: Any, said: str) -> None:
    rewritten(copy, change)
    with pytest.raises(RecordingError) as caught, open_recording(copy):
        pass
    assert str(caught.value).startswith(f"{copy} is damaged: its facts cannot be read ({said}")


def test_inputs_that_are_not_finite_are_refused(copy: Path) -> None:
    with h5py.File(copy, "r+") as file:
        values = file["inputs"][...]
        values[1, 2, 3, 0] = np.nan
        file["inputs"][...] = values
    rewritten(copy, lambda f: f["inputs"].update(sha256=digest(values)))
    with (
        pytest.raises(RecordingError, match=r"its inputs hold nan at \[1, 2, 3, 0\]; expected finite numbers"),
        open_recording(copy) as recording,
    ):
        recording.inputs()


def test_a_position_outside_of_the_end_point_is_refused(sampled: Path, tmp_path: Path) -> None:
    path = tmp_path / "r.h5"
    path.write_bytes(sampled.read_bytes())
    with h5py.File(path, "r+") as file:
        (key, dataset), *_ = file["positions"].items()
        values = dataset[...]
        values[-1] = 10**9
        dataset[...] = values
    rewritten(path, lambda f: f["end_points"][int(key.split()[0])].update(positions_sha256=digest(values)))
    with pytest.raises(RecordingError, match="lies outside of it"):
        read_all(path)


def test_links_to_elsewhere_are_refused(copy: Path, tmp_path: Path) -> None:
    with h5py.File(copy, "r+") as file:
        del file["inputs"]
        file["inputs"] = h5py.ExternalLink(str(tmp_path / "other.h5"), "x")
    with pytest.raises(RecordingError, match="link to something else"), open_recording(copy):
        pass


def test_an_error_of_the_reader_is_not_taken_for_damage(whole: Path) -> None:
    with pytest.raises(ValueError, match="mine"), open_recording(whole):
        raise ValueError("mine")


def test_a_recording_needs_no_network(tmp_path: Path, tiny_file: Path, photos: list[Path]) -> None:
    """Of a graph that somebody built himself there is no call to record."""
    weights = load_weights(tiny_file)
    path = record_definition(tmp_path / "r.h5", weights, photos, network=None)
    with open_recording(path) as recording:
        assert recording.network is None
        assert replace(recording.facts, versions={}).network is None
