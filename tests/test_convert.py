"""From a checkpoint, written by TensorFlow or as TensorFlow does, to a weights file with the same numbers."""

import hashlib
import json
import os
import shutil
import tarfile
import tracemalloc
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import checkpoint_files
import numpy as np
import numpy.typing as npt
import pytest
from conftest import TINY
from variables import random_variables, training_extras

from resnet_ref import CheckpointError, WeightsError, load_weights, oracle
from resnet_ref.convert import Conversion, convert
from resnet_ref.labels import imagenet_labels
from resnet_ref.network import Network

Arrays = Mapping[str, npt.NDArray[Any]]
NARROW = {
    "function": "resnet_v1_50",
    "scope": "resnet_v1_50",
    "num_classes": 7,
    "min_base_depth": 1,
    "depth_multiplier": 0.01,
}


def same(path: Path, expected: Arrays, order: Any = None) -> None:
    weights = load_weights(path)
    assert list(weights) == list(order or expected)
    for name, array in weights.items():
        assert array.dtype == np.float32
        np.testing.assert_array_equal(array, expected[name])


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory, tiny_variables: dict[str, Any]) -> Path:
    """The small network as TensorFlow's Saver writes it, in four ways."""
    folder = tmp_path_factory.mktemp("checkpoints")
    values = {**tiny_variables, **training_extras(tiny_variables, "tiny")}
    for name, how in WAYS.items():
        (folder / name).mkdir()
        oracle.save_checkpoint(values, folder / name / "model.ckpt-3", **how)
    return folder


WAYS: dict[str, dict[str, int]] = {
    "V1": {"write_version": 1},
    "V2": {},
    "sharded": {"shards": 2},
    "partitioned": {"parts": 2},
    "V1 sharded": {"write_version": 1, "shards": 2},
}


def tiny(source: Path, destination: Path, **options: Any) -> Conversion:
    return convert(source, destination, overrides=TINY, **options)


@pytest.mark.oracle
@pytest.mark.parametrize("way", WAYS)
def test_every_kind_of_checkpoint_gives_the_arrays_that_were_saved(
    folder: Path, tmp_path: Path, tiny_variables: Arrays, way: str
) -> None:
    made = tiny(folder / way / "model.ckpt-3", tmp_path / "w.h5")
    same(tmp_path / "w.h5", tiny_variables)
    assert made.source["kind"] == ("TensorFlow V1" if way.startswith("V1") else "TensorFlow V2")
    assert made.network == Network.from_json(TINY)
    assert list(made.written) == list(tiny_variables)
    assert set(made.skipped) == set(training_extras(tiny_variables, "tiny"))


@pytest.mark.oracle
def test_a_whole_variant_is_recognised_and_converted_without_a_word_of_what_it_is(tmp_path: Path) -> None:
    values = random_variables(Network.from_json(NARROW).variables())
    prefix = oracle.save_checkpoint(values, tmp_path / "model.ckpt")
    made = convert(prefix, tmp_path / "w.h5")
    assert made.network.to_json() == NARROW
    same(tmp_path / "w.h5", values, Network.from_json(NARROW).variables())


def archived(folder: Path, tmp_path: Path) -> Path:
    with tarfile.open(tmp_path / "a.tar.gz", "w:gz") as tar:
        tar.add(folder / "V2", "train")
    return tmp_path / "a.tar.gz"


NAMED = {
    "a folder": lambda folder, tmp: folder / "V2",
    "an .index": lambda folder, tmp: folder / "V2" / "model.ckpt-3.index",
    "a .data": lambda folder, tmp: folder / "V2" / "model.ckpt-3.data-00000-of-00001",
    "a .meta": lambda folder, tmp: folder / "V2" / "model.ckpt-3.meta",
    "the state file": lambda folder, tmp: folder / "V2" / "checkpoint",
    "text": lambda folder, tmp: str(folder / "V2" / "model.ckpt-3"),
    "an archive": archived,
}


@pytest.mark.oracle
@pytest.mark.parametrize("name", NAMED)
def test_a_checkpoint_may_be_named_in_any_way(folder: Path, tmp_path: Path, tiny_variables: Arrays, name: str) -> None:
    tiny(NAMED[name](folder, tmp_path), tmp_path / "w.h5")
    same(tmp_path / "w.h5", tiny_variables)


@pytest.mark.oracle
def test_the_file_says_which_files_it_was_made_from(folder: Path, tmp_path: Path) -> None:
    made = tiny(folder / "V2", tmp_path / "w.h5")
    assert load_weights(tmp_path / "w.h5").source == made.source
    files = [folder / "V2" / f"model.ckpt-3{end}" for end in (".index", ".data-00000-of-00001")]
    assert made.source["files"] == [
        {"name": f.name, "bytes": f.stat().st_size, "sha256": hashlib.sha256(f.read_bytes()).hexdigest()} for f in files
    ]
    archive = archived(folder, tmp_path)
    [file] = tiny(archive, tmp_path / "w.h5").source["files"]
    assert file["name"] == "a.tar.gz"
    assert file["sha256"] == hashlib.sha256(archive.read_bytes()).hexdigest()


@pytest.fixture(scope="module")
def fake(tmp_path_factory: pytest.TempPathFactory) -> Any:
    """Writes a V2 checkpoint without TensorFlow, which is quicker."""

    def write(values: Arrays) -> Path:
        entries, data = {}, b""
        for name, value in values.items():
            raw = value.tobytes()
            dtype = {"float32": 1, "float64": 2, "int32": 3, "int64": 9}[value.dtype.name]
            shape = checkpoint_files.shape(*value.shape)
            entries[name.encode()] = checkpoint_files.entry(raw, shape, dtype, len(data))
            data += raw
        return checkpoint_files.v2(tmp_path_factory.mktemp("fake") / "model.ckpt", dict(sorted(entries.items())), data)

    return write


@pytest.mark.parametrize("num_classes", [1000, 1001])
def test_imagenets_labels_are_known(fake: Any, tmp_path: Path, num_classes: int) -> None:
    call = {**TINY, "num_classes": num_classes}
    source = fake(random_variables(Network.from_json(call).variables()))
    made = convert(source, tmp_path / "w.h5", overrides=call)
    labels = load_weights(tmp_path / "w.h5").labels
    assert labels == made.labels == tuple(imagenet_labels(num_classes) or ())
    assert labels is not None
    assert labels[num_classes - 1000] == "tench, Tinca tinca"


def test_labels_and_preprocessing_of_ones_own_are_recorded(fake: Any, tmp_path: Path, tiny_variables: Arrays) -> None:
    asked: list[int] = []

    def labels(num_classes: int) -> list[str]:
        asked.append(num_classes)
        return list("abcde")

    made = tiny(
        fake(tiny_variables), tmp_path / "w.h5", labels=labels, preprocessing={"name": "vgg", "resize_side": 240}
    )
    weights = load_weights(tmp_path / "w.h5")
    assert asked == [5]
    assert weights.labels == made.labels == ("a", "b", "c", "d", "e")
    assert weights.preprocessing is not None
    assert (weights.preprocessing.resize_side, weights.preprocessing.height) == (240, 224)


def test_without_a_word_the_preprocessing_is_slims_and_there_are_no_labels(
    fake: Any, tmp_path: Path, tiny_variables: Arrays
) -> None:
    tiny(fake(tiny_variables), tmp_path / "w.h5")
    weights = load_weights(tmp_path / "w.h5")
    assert weights.labels is None
    assert weights.preprocessing is not None
    assert weights.preprocessing.resize_side == 256


def test_other_dtypes_become_float32(fake: Any, tmp_path: Path, tiny_variables: dict[str, Any]) -> None:
    doubles = {name: value.astype(np.float64) for name, value in tiny_variables.items()}
    tiny(fake(doubles), tmp_path / "w.h5")
    same(tmp_path / "w.h5", tiny_variables)


def test_progress_ends_at_the_sum_of_all_bytes(fake: Any, tmp_path: Path, tiny_variables: Arrays) -> None:
    calls: list[tuple[str, int, int]] = []
    tiny(fake(tiny_variables), tmp_path / "w.h5", progress=lambda *call: calls.append(call))
    total = sum(value.nbytes for value in tiny_variables.values())
    assert sorted(name for name, _, _ in calls) == sorted(tiny_variables)
    assert [done for _, done, _ in calls] == sorted(done for _, done, _ in calls)
    assert calls[-1][1:] == (total, total)
    assert {whole for _, _, whole in calls} == {total}


def untouched(source: Path, tmp_path: Path, **options: Any) -> str:
    """The error of a conversion that must leave an older destination, and no other file."""
    folder = tmp_path / "out"
    folder.mkdir()
    (folder / "w.h5").write_text("older")
    with pytest.raises((CheckpointError, WeightsError)) as caught:
        tiny(source, folder / "w.h5", **options)
    assert os.listdir(folder) == ["w.h5"]
    assert (folder / "w.h5").read_text() == "older"
    return str(caught.value)


@pytest.mark.parametrize("number", [np.nan, np.inf])
def test_a_diverged_training_is_refused_by_the_variables_name(
    fake: Any, tmp_path: Path, tiny_variables: dict[str, Any], number: float
) -> None:
    name = "tiny/block2/unit_1/bottleneck_v1/conv2/BatchNorm/moving_variance"
    values = {**tiny_variables, name: tiny_variables[name].copy()}
    values[name][3] = number
    assert f"{name} holds {number} at [3]" in untouched(fake(values), tmp_path)


def test_a_flipped_bit_in_the_data_is_refused_by_the_variables_name(
    fake: Any, tmp_path: Path, tiny_variables: dict[str, Any]
) -> None:
    source = fake(tiny_variables)
    data = source.with_name("model.ckpt.data-00000-of-00001")
    raw = bytearray(data.read_bytes())
    offset = tiny_variables["tiny/conv1/weights"].nbytes + 5  # in the variable that follows the first
    raw[offset] ^= 4
    data.write_bytes(raw)
    assert list(tiny_variables)[1] in untouched(source, tmp_path)


def test_a_cut_off_or_missing_data_file_is_refused(fake: Any, tmp_path: Path, tiny_variables: Arrays) -> None:
    source = fake(tiny_variables)
    data = source.with_name("model.ckpt.data-00000-of-00001")
    data.write_bytes(data.read_bytes()[:-1])
    assert "model.ckpt" in untouched(source, tmp_path)
    data.unlink()
    shutil.rmtree(tmp_path / "out")
    assert "model.ckpt.data-00000-of-00001" in untouched(source, tmp_path)


def test_what_does_not_fit_is_refused_with_the_sources_name(fake: Any, tmp_path: Path, tiny_variables: Arrays) -> None:
    source = fake({**tiny_variables, "tiny/extra": np.ones(3, np.float32)})
    message = untouched(source, tmp_path)
    assert message.startswith(f"{source}: ")
    assert "tiny/extra [3] is not a variable of the network" in message


def test_wrong_labels_or_preprocessing_are_refused(fake: Any, tmp_path: Path, tiny_variables: Arrays) -> None:
    source = fake(tiny_variables)
    assert "3 labels for 5 classes" in untouched(source, tmp_path, labels=lambda n: ["a"] * 3)
    shutil.rmtree(tmp_path / "out")
    assert "expected one of vgg, torchvision, keras" in untouched(source, tmp_path, preprocessing={"name": "inception"})


def test_an_interrupted_conversion_leaves_the_older_file(fake: Any, tmp_path: Path, tiny_variables: Arrays) -> None:
    (tmp_path / "w.h5").write_text("older")

    def stop(name: str, done: int, total: int) -> None:
        if done > total / 2:
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        tiny(fake(tiny_variables), tmp_path / "w.h5", progress=stop)
    assert os.listdir(tmp_path) == ["w.h5"]
    assert (tmp_path / "w.h5").read_text() == "older"


def test_memory_stays_near_the_largest_variable(fake: Any, tmp_path: Path) -> None:
    """Eight units, each with 4 MB in one variable; Python and NumPy may hold three of those at once."""
    units = [{"depth": 8, "depth_bottleneck": 340, "stride": 1}] * 8
    call = {
        "function": "resnet_v1",
        "scope": "s",
        "blocks": [{"scope": "b", "args": units}],
        "include_root_block": False,
    }
    shapes = Network.from_json(call).variables()
    largest = 4 * max(int(np.prod(shape)) for shape in shapes.values())
    total = 4 * sum(int(np.prod(shape)) for shape in shapes.values())
    assert total > 7 * largest > 28_000_000
    source = fake({name: np.full(shape, 0.5, np.float32) for name, shape in shapes.items()})
    tracemalloc.start()
    try:
        convert(source, tmp_path / "w.h5", overrides=call)
        peak = tracemalloc.get_traced_memory()[1]
    finally:
        tracemalloc.stop()
    assert peak < 3 * largest + 2_000_000
    assert len(load_weights(tmp_path / "w.h5")) == len(shapes)


@pytest.mark.oracle
def test_a_variable_that_is_no_number_is_skipped_and_listed(tmp_path: Path, tiny_variables: Arrays) -> None:
    checkpoint_files.save(tmp_path / "model.ckpt", {**tiny_variables, "tiny/note": "text"}, 2)
    made = tiny(tmp_path / "model.ckpt", tmp_path / "w.h5")
    assert made.skipped == {"tiny/note": "not numeric"}
    same(tmp_path / "w.h5", tiny_variables)


def test_what_convert_reports_is_plain_data(fake: Any, tmp_path: Path, tiny_variables: Arrays) -> None:
    made = tiny(fake(tiny_variables), tmp_path / "w.h5")
    for part in (made.source, made.network.to_json(), made.preprocessing, made.written, made.skipped):
        assert json.loads(json.dumps(part)) is not None
