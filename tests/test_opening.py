"""`convert` on whatever it is given: what it is, by content; what it made of it; what it refuses, and leaves out."""

import os
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from conftest import RECORDING, Run
from safetensors.numpy import save_file
from test_keras_files import legacy, resnet50

from resnet_ref import CheckpointError, load_weights
from resnet_ref.cli.convert import _units
from resnet_ref.convert import convert
from resnet_ref.export import export
from resnet_ref.network import Network
from resnet_ref.opening import open_arrays
from resnet_ref.preprocessing import Preprocessing
from resnet_ref.random_weights import random_variables
from resnet_ref.weights.checkpoint.bundle_writer import bundle_files, write_bundle
from resnet_ref.weights_file import DIGITS

UNITS = (3, 4, 6, 3)
NARROW = Network("resnet_v1_50", {"num_classes": 7, "depth_multiplier": 0.05})


def torchvision_shapes(classes: int = 10) -> dict[str, tuple[int, ...]]:
    """A resnet50's state dict."""
    shapes: dict[str, tuple[int, ...]] = {
        "conv1.weight": (64, 3, 7, 7),
        "fc.weight": (classes, 2048),
        "fc.bias": (classes,),
    }
    norms = {"bn1": 64}
    inputs = 64
    for block, units in enumerate(UNITS):
        width = 64 << block
        for unit in range(units):
            where = f"layer{block + 1}.{unit}"
            shapes[f"{where}.conv1.weight"] = (width, inputs, 1, 1)
            shapes[f"{where}.conv2.weight"] = (width, width, 3, 3)
            shapes[f"{where}.conv3.weight"] = (4 * width, width, 1, 1)
            norms |= {f"{where}.bn1": width, f"{where}.bn2": width, f"{where}.bn3": 4 * width}
            if unit == 0:
                shapes[f"{where}.downsample.0.weight"] = (4 * width, inputs, 1, 1)
                norms[f"{where}.downsample.1"] = 4 * width
            inputs = 4 * width
    leaves = ("weight", "bias", "running_mean", "running_var")
    return shapes | {f"{norm}.{leaf}": (width,) for norm, width in norms.items() for leaf in leaves}


@pytest.fixture(scope="module")
def torchvision_file(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("torch") / "resnet50.safetensors"
    rng = np.random.default_rng(0)
    save_file(
        {name: rng.uniform(0.5, 1, shape).astype(np.float32) for name, shape in torchvision_shapes().items()}, path
    )
    return path


@pytest.fixture(scope="module")
def keras_file(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return legacy(tmp_path_factory.mktemp("keras") / "resnet50.h5", resnet50(classes=10))


def test_a_file_of_torchvision_becomes_a_weights_file_that_says_what_it_is(
    torchvision_file: Path, tmp_path: Path
) -> None:
    made = convert(torchvision_file, tmp_path / "w.h5")
    weights = load_weights(tmp_path / "w.h5")
    assert made.source["kind"] == "safetensors"
    assert "block2: strides [2, 1, 1, 1]" in _units(made.network.to_json()["blocks"])
    assert made.source["files"][0]["name"] == "resnet50.safetensors"
    assert weights.network.arg_scope.max_pool2d_padding == "FIXED"
    assert weights.network.blocks[1].args[0]["stride"] == 2
    assert weights.preprocessing is not None
    assert weights.preprocessing.name == "torchvision"
    with open_arrays(torchvision_file).arrays as arrays:
        kernel = arrays.read("layer2.1.conv2.weight")
    scope = "resnet_v1_50/block2/unit_2/bottleneck_v1"
    np.testing.assert_array_equal(weights[f"{scope}/conv2/weights"], kernel.transpose(2, 3, 1, 0))


def test_a_file_of_keras_becomes_a_weights_file_that_says_what_it_is(
    keras_file: Path, tmp_path: Path, run: Run
) -> None:
    status, out, err = run("convert", keras_file, tmp_path / "w.h5")
    assert (status, err) == (0, "")
    assert "Keras HDF5 -> " in out
    assert "max_pool2d_padding" in out
    weights = load_weights(tmp_path / "w.h5")
    assert weights.network.arg_scope.batch_norm_epsilon == 1.001e-5
    assert weights.preprocessing is not None
    assert weights.preprocessing.name == "keras"


def test_what_is_not_used_is_refused_by_name_or_left_out_when_asked(torchvision_file: Path, tmp_path: Path) -> None:
    shapes = {**torchvision_shapes(), "aux.weight": (3, 2)}
    more = tmp_path / "more.safetensors"
    save_file({name: np.ones(shape, np.float32) for name, shape in shapes.items()}, more)
    with pytest.raises(CheckpointError, match=r"aux\.weight"):
        convert(more, tmp_path / "w.h5")
    assert not (tmp_path / "w.h5").exists()
    made = convert(more, tmp_path / "w.h5", strict=False)
    assert made.skipped == {"aux.weight": "not a variable of the network"}
    keras_shapes = {**resnet50(classes=10), "extra/kernel": (2, 2)}
    legacy(tmp_path / "more.h5", keras_shapes)
    with pytest.raises(CheckpointError, match="extra"):
        convert(tmp_path / "more.h5", tmp_path / "w.h5")
    made = convert(tmp_path / "more.h5", tmp_path / "w.h5", strict=False)
    assert made.skipped == {"extra/kernel": "not a variable of the network"}


def test_no_strict_leaves_out_of_a_tensorflow_checkpoint_too(tmp_path: Path, run: Run) -> None:
    variables = random_variables(NARROW.variables()) | {"resnet_v1_50/aux/weights": np.ones((3, 2), np.float32)}
    index, data = bundle_files(tmp_path / "model.ckpt")
    with index.open("wb") as first, data.open("wb") as second:
        write_bundle(first, second, variables)
    line = ("convert", tmp_path / "model.ckpt", tmp_path / "w.h5")
    status, out, err = run(*line)
    assert (status, out) == (2, "")
    assert "resnet_v1_50/aux/weights" in err
    status, out, err = run(*line, "--no-strict")
    assert (status, err) == (0, "")
    assert "left out   1 x not a variable of the network: resnet_v1_50/aux/weights" in out


def test_options_that_make_another_network_of_it_are_refused(torchvision_file: Path, tmp_path: Path) -> None:
    with pytest.raises(CheckpointError, match=r"as the options have it, .* of scope other, but .* missing"):
        convert(torchvision_file, tmp_path / "w.h5", overrides={"scope": "other"})
    made = convert(torchvision_file, tmp_path / "w.h5", overrides={"output_stride": 16})
    assert made.network.arguments["output_stride"] == 16


def test_an_entry_of_the_arg_scope_leaves_the_others_as_the_file_has_them(
    torchvision_file: Path, keras_file: Path, tmp_path: Path
) -> None:
    """Pool1's padding and Keras' epsilon are among them."""
    made = convert(torchvision_file, tmp_path / "t.h5", overrides={"arg_scope": {"batch_norm_epsilon": 1e-3}})
    assert made.network.arg_scope.batch_norm_epsilon == 1e-3
    assert made.network.arg_scope.max_pool2d_padding == "FIXED"
    made = convert(keras_file, tmp_path / "k.h5", overrides={"arg_scope": {"weight_decay": 5e-4}})
    assert made.network.arg_scope.batch_norm_epsilon == 1.001e-5
    assert made.network.arg_scope.max_pool2d_padding == "FIXED"
    assert made.network.arg_scope.weight_decay == 5e-4


@pytest.mark.parametrize(
    ("overrides", "option"),
    [
        ({"function": "resnet_v1_101"}, "--variant resnet_v1_101"),
        ({"depth_multiplier": 0.5}, "--depth-multiplier 0.5"),
        ({"min_base_depth": 4}, "--min-base-depth 4"),
    ],
)
def test_options_for_checkpoints_are_refused_where_a_file_shows_itself_what_it_is(
    torchvision_file: Path, keras_file: Path, tmp_path: Path, overrides: dict[str, Any], option: str
) -> None:
    for path in (torchvision_file, keras_file):
        with pytest.raises(CheckpointError, match=f"{option} does not go with it: a file of .* resnet_v1_50, in full"):
            convert(path, tmp_path / "w.h5", overrides=overrides)
        convert(path, tmp_path / "w.h5", overrides={"function": "resnet_v1_50"})


def test_what_a_preprocessing_leaves_out_is_as_the_file_has_it(torchvision_file: Path, tmp_path: Path) -> None:
    made = convert(torchvision_file, tmp_path / "w.h5", preprocessing={"name": "torchvision", "resize_side": 232})
    assert made.preprocessing == {
        "name": "torchvision",
        "resize_side": 232,
        "height": 224,
        "width": 224,
        "means": [123.675, 116.28, 103.53],
        "deviations": [58.395, 57.12, 57.375],
    }
    made = convert(torchvision_file, tmp_path / "w.h5", preprocessing={"name": "vgg"})
    assert made.preprocessing == Preprocessing().to_json()
    assert Preprocessing.from_json({"name": "keras"}).means == (123.68, 116.779, 103.939)


def test_what_a_file_does_not_show_is_said(torchvision_file: Path, keras_file: Path, tmp_path: Path, run: Run) -> None:
    for path, said in (
        (torchvision_file, "epsilon 1e-05 and no dilation"),
        (keras_file, "epsilon 1.001e-05, strides and"),
    ):
        out = run("convert", path, tmp_path / "w.h5", "--force")[1]
        assert f"assumed    {said}" in out
    assert "images     as keras prepares them: height 224" in out


@pytest.mark.parametrize(
    ("name", "value", "said"),
    [
        ("layer3.2.bn2.weight", np.nan, "layer3.2.bn2.weight holds nan at [3]; expected finite numbers"),
        ("layer3.2.bn2.running_var", -1.0, "/BatchNorm/moving_variance goes down to -1; a variance is at least 0"),
        ("fc.bias", 1e300, "resnet_v1_50/logits/biases goes up to 1e+300, beyond float32"),
    ],
)
def test_numbers_that_no_network_has_are_refused_under_the_name_of_the_source(
    torchvision_file: Path, tmp_path: Path, name: str, value: float, said: str
) -> None:
    with open_arrays(torchvision_file).arrays as arrays:
        content = {one: arrays.read(one).astype(np.float64) for one in arrays.variables}
    content[name][3] = value
    save_file(content, path := tmp_path / "bad.safetensors")
    with pytest.raises(CheckpointError) as caught:
        convert(path, tmp_path / "w.h5")
    assert said in str(caught.value)
    assert str(caught.value).startswith(f"{path}: ")
    assert not (tmp_path / "w.h5").exists()


def test_a_variance_a_little_below_zero_is_taken_as_slim_takes_it(torchvision_file: Path, tmp_path: Path) -> None:
    with open_arrays(torchvision_file).arrays as arrays:
        content = {one: arrays.read(one) for one in arrays.variables}
    content["bn1.running_var"][0] = -9e-6  # epsilon is more
    save_file(content, path := tmp_path / "small.safetensors")
    convert(path, tmp_path / "w.h5")


def test_what_this_package_wrote_is_named(tmp_path: Path, run: Run, tiny_file: Path) -> None:
    """Sealed and, as all were before version 2, not."""
    name = "is a weights file of resnet-ref already; it can be used, or exported, as it is"
    recording = "is no weights file but a 'resnet-ref recording'"
    for path, said in ((tiny_file, name), (DIGITS, name), (RECORDING, recording)):
        status, out, err = run("convert", path, tmp_path / "w.h5")
        assert (status, out) == (2, "")
        assert f"{path} {said}" in err


@pytest.mark.parametrize(
    "content", [b"", b"\0", b"text", b"PK\x03\x04", b"\x89HDF\r\n\x1a\n", b"\x80\x02]q", b"\0" * 8 + b"{"]
)
def test_what_is_nothing_of_all_that_is_one_error(tmp_path: Path, run: Run, content: bytes) -> None:
    path = tmp_path / "file"
    path.write_bytes(content)
    status, out, err = run("convert", path, tmp_path / "w.h5")
    assert (status, out) == (2, "")
    assert len(err.splitlines()) == 1
    assert str(path) in err
    assert not (tmp_path / "w.h5").exists()


def test_what_was_exported_as_safetensors_comes_back_with_all_that_it_was(tmp_path: Path, tiny_file: Path) -> None:
    export(load_weights(tiny_file), tmp_path / "tiny.safetensors")
    convert(tmp_path / "tiny.safetensors", tmp_path / "back.h5")
    before, after = load_weights(tiny_file), load_weights(tmp_path / "back.h5")
    assert (after.network, after.labels, after.preprocessing) == (before.network, before.labels, before.preprocessing)
    assert list(after) == list(before)
    for name in before:
        np.testing.assert_array_equal(after[name], before[name])


@pytest.mark.parametrize(
    ("described", "message"),
    [
        ("no JSON", "are no JSON object"),
        ("[1]", "are no JSON object"),
        ("{}", "a network is described as"),
        ('{"network": {"function": "resnet_v1_50", "num_classes": -1}}', "network's description is wrong"),
        ('{"network": {"function": "resnet_v1_50"}}', "does not hold the network it describes: .* is missing"),
    ],
)
def test_a_description_among_the_metadata_is_not_believed(tmp_path: Path, described: str, message: str) -> None:
    save_file({"a": np.ones(3, np.float32)}, tmp_path / "a.safetensors", {"resnet_ref": described})
    with pytest.raises(CheckpointError, match=message):
        convert(tmp_path / "a.safetensors", tmp_path / "w.h5")


def test_a_source_whose_name_is_no_text_is_converted(run: Run, tmp_path: Path) -> None:
    export(load_weights(), tmp_path / "a.safetensors")
    source = os.fsdecode(os.fsencode(tmp_path) + b"/\xff.safetensors")
    os.rename(tmp_path / "a.safetensors", source)
    status, _, err = run("convert", source, tmp_path / "w.h5")
    assert (status, err) == (0, "")
    assert load_weights(tmp_path / "w.h5").source["files"][0]["name"] == "\\udcff.safetensors"
