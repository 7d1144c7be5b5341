"""Weights that Keras saved give Keras' own numbers here; live Keras 3, and Keras 2 as tf_keras."""

import copy
import json
import shutil
import zipfile
import zlib
from collections.abc import Iterator
from functools import cache, lru_cache
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
from elsewhere import Array, Variables, _drawn_for, error, in_keras, keras, pixels

from resnet_ref import load_model, oracle, resnet_v1, save_weights
from resnet_ref.elsewhere.keras import translate
from resnet_ref.elsewhere.keras_config import differences
from resnet_ref.elsewhere.translation import Translation
from resnet_ref.errors import CheckpointError
from resnet_ref.network import Network
from resnet_ref.preprocessing import Preprocessing
from resnet_ref.weights.elsewhere.keras_h5 import KerasFile

pytestmark = pytest.mark.oracle
LEGACY = "legacy.h5"
WAYS = [("keras", way) for way in ("whole.h5", "a.weights.h5", "a.keras")]
WAYS += [("tf_keras", way) for way in ("whole.h5", LEGACY, "a.weights.h5", "a.keras")]
TOP = (("classes", 11), ("classifier_activation", None))


@pytest.fixture
def tmp_path(tmp_path: Path) -> Iterator[Path]:
    """Emptied after the test: pytest keeps such folders for three runs, and these files have 100 MB each."""
    yield tmp_path
    shutil.rmtree(tmp_path)


@lru_cache(maxsize=6)
def built(
    library: str, depth: int, size: tuple[int, int] = (64, 96), options: tuple[tuple[str, Any], ...] = TOP
) -> Any:
    """Keras' network; each layer's weights are drawn by its name, alike in both libraries and for all sizes."""
    with oracle.quiet():
        network = getattr(keras(library).applications, f"ResNet{depth}")
        model = network(weights=None, input_shape=(*size, 3), **dict(options))
    for layer in model.layers:
        rng = np.random.default_rng(zlib.crc32(layer.name.encode()))
        named = [
            SimpleNamespace(shape=v.shape, path=f"{layer.name}/{v.name.rpartition('/')[2].removesuffix(':0')}")
            for v in layer.weights
        ]
        layer.set_weights([_drawn_for(variable, rng) for variable in named])
    return model


def saved(model: Any, path: Path) -> Path:
    with oracle.quiet():
        if path.name == LEGACY:
            model.save_weights(path, save_format="h5")
        elif path.name.endswith(".weights.h5"):
            model.save_weights(path)
        else:
            model.save(path)
    return path


def made(path: Path) -> tuple[Translation, Variables]:
    with KerasFile(path) as file:
        translation = translate(file)
        variables = {
            name: derived.make(*(file.read(source) for source in derived.sources))
            for name, derived in translation.variables.items()
        }
    return translation, variables


def ours(x: Array, translation: Translation, variables: Variables) -> tuple[Array, Variables]:
    network = Network.from_json(translation.network)
    function = getattr(resnet_v1, network.function)
    how = {"is_training": False, "weights": variables, "arg_scope": network.arg_scope, "device": "cpu"}
    return function(x, **network.arguments, **how)


def prepared(size: tuple[int, int], count: int = 1) -> tuple[Array, Array]:
    """Pixels as ours takes them, and as Keras' own preprocessing makes them."""
    images = [pixels(*size, seed=seed) for seed in range(count)]
    prepare = Preprocessing("keras", height=size[0], width=size[1], means=(123.68, 116.779, 103.939))
    with oracle.quiet():
        theirs = keras().applications.resnet.preprocess_input(np.stack(images).astype(np.float32))
    return np.stack([prepare(image) for image in images]), theirs


@cache
def slims(depth: int) -> Variables:
    """Of `built`, from Keras' own layers."""
    variables: Variables = {}
    model, scope = built("keras", depth), f"resnet_v1_{depth}"
    for layer in model.layers:
        if layer.name.endswith("_conv"):
            kernel, bias = layer.get_weights()
            gamma, beta, mean, variance = model.get_layer(layer.name.replace("_conv", "_bn")).get_weights()
            name = f"{scope}/conv1"
            if layer.name == "conv1_conv":
                kernel = kernel[:, :, ::-1]
            else:
                stage, unit, part, _ = layer.name.split("_")
                end = ("shortcut", "conv1", "conv2", "conv3")[int(part)]
                name = f"{scope}/block{int(stage[4:]) - 1}/unit_{unit[5:]}/bottleneck_v1/{end}"
            norm = {"gamma": gamma, "beta": beta, "moving_mean": mean - bias, "moving_variance": variance}
            variables |= {f"{name}/BatchNorm/{leaf}": value for leaf, value in norm.items()}
            variables[f"{name}/weights"] = kernel
    kernel, bias = model.get_layer("predictions").get_weights()
    return {**variables, f"{scope}/logits/weights": kernel[None, None], f"{scope}/logits/biases": bias}


@pytest.mark.parametrize(("library", "way"), WAYS)
def test_however_keras_saves_its_resnet50_the_variables_are_the_same_to_the_bit(
    library: str, way: str, tmp_path: Path
) -> None:
    translation, variables = made(saved(built(library, 50), tmp_path / way))
    assert {name: array.shape for name, array in variables.items()} == Network.from_json(
        translation.network
    ).variables()
    for name, want in slims(50).items():
        np.testing.assert_array_equal(variables[name], want)
    has_config = way in ("whole.h5", "a.keras")
    assert translation.preprocessing == {
        "name": "keras",
        "height": 64 if has_config else 224,
        "width": 96 if has_config else 224,
        "means": [123.68, 116.779, 103.939],
    }
    assert (translation.skipped, translation.labels, translation.network["num_classes"]) == ({}, None, 11)


@pytest.mark.slow
@pytest.mark.parametrize("depth", [101, 152])
def test_keras_2_numbers_the_layers_of_deeper_networks_as_we_count_them(depth: int, tmp_path: Path) -> None:
    _, variables = made(saved(built("tf_keras", depth), tmp_path / "a.weights.h5"))
    for name, want in slims(depth).items():
        np.testing.assert_array_equal(variables[name], want)


SIZES = [(101, (64, 96)), (152, (64, 96)), (50, (64, 96)), (50, (65, 97)), (50, (225, 98))]


@pytest.mark.slow
@pytest.mark.parametrize(("depth", "size"), SIZES)
def test_the_logits_are_keras_from_pixels_on(
    depth: int, size: tuple[int, int], tmp_path: Path, record_property: Any
) -> None:
    """Each side does its own preprocessing: ours RGB, Keras' BGR. Even sizes are those where slim's pool1 differs."""
    model = built("keras", depth, size)
    translation, variables = made(saved(model, tmp_path / "a.weights.h5"))
    x, theirs = prepared(size, 2)
    want = in_keras(model, theirs)
    off = error(ours(x, translation, variables)[0], want)
    record_property("error", off)
    print(f"ResNet{depth} {size}: {off:.1e} of the largest logit")
    assert off < 1e-5


def test_a_converted_file_that_load_model_loads_gives_keras_probabilities(tmp_path: Path) -> None:
    model = built("tf_keras", 50, (64, 96), (("classes", 11),))
    translation, variables = made(saved(model, tmp_path / LEGACY))
    save_weights(tmp_path / "ours.h5", variables, translation.network, preprocessing=translation.preprocessing)
    x, theirs = prepared((64, 96), 2)
    assert error(load_model(tmp_path / "ours.h5", device="cpu")(x), in_keras(model, theirs)) < 1e-5


@pytest.mark.parametrize(
    ("library", "way", "pooling"),
    [("keras", "a.keras", None), ("keras", "a.weights.h5", "avg"), ("tf_keras", "a.weights.h5", None),
     ("tf_keras", "a.keras", "avg")],
)  # fmt: skip
def test_without_its_top_the_features_are_keras(library: str, way: str, pooling: str | None, tmp_path: Path) -> None:
    model = built(library, 50, (64, 96), (("include_top", False), ("pooling", pooling)))
    translation, variables = made(saved(model, tmp_path / way))
    assert "num_classes" not in translation.network
    assert not any("logits" in name for name in variables)
    x, theirs = prepared((64, 96))
    net, _ = ours(x, translation, variables)
    want = in_keras(model, theirs)
    assert error(net, want if pooling is None else want[:, None, None]) < 1e-5


def test_global_max_pooling_is_refused(tmp_path: Path) -> None:
    """slim has no such end, and a file of weights alone shows it by its layers."""
    model = built("keras", 50, (64, 96), (("include_top", False), ("pooling", "max")))
    for way in ("a.weights.h5", "whole.h5"):
        with pytest.raises(CheckpointError, match="max_pool"):
            made(saved(model, tmp_path / way))


@pytest.mark.parametrize(("library", "way"), [w for w in WAYS if w[1] != LEGACY])
def test_the_optimizers_numbers_are_left_out_by_name(library: str, way: str, tmp_path: Path) -> None:
    model = built(library, 50, (64, 96), (("classes", 3),))
    with oracle.quiet():
        model.compile("sgd", "sparse_categorical_crossentropy")
        model.optimizer.build(model.trainable_variables)
    translation, variables = made(saved(model, tmp_path / way))
    assert set(translation.skipped.values()) == {"optimizer slot"}
    assert all(name.startswith("optimizer") for name in translation.skipped)
    assert len(variables) == 53 * 5 + 2


@pytest.mark.parametrize(("library", "way"), [("keras", "a.keras"), ("tf_keras", "a.weights.h5")])
def test_dropout_before_the_classifier_is_left_out(library: str, way: str, tmp_path: Path) -> None:
    k = keras(library)
    with oracle.quiet():
        base = k.applications.ResNet50(weights=None, include_top=False, pooling="avg", input_shape=(64, 96, 3))
        top = k.layers.Dropout(0.5)(k.layers.Dropout(0.2)(base.output))
        model = k.Model(base.input, k.layers.Dense(7, activation="softmax", name="predictions")(top))
    translation, variables = made(saved(model, tmp_path / way))
    assert set(translation.skipped.values()) <= {"a layer that does nothing in inference"}
    assert translation.network["num_classes"] == 7
    assert len(variables) == 53 * 5 + 2


@cache
def others(library: str) -> dict[str, Any]:
    """Models that are not ResNet50, by the words that refuse them."""
    k = keras(library)
    size = {"weights": None, "input_shape": (64, 64, 3)}
    with oracle.quiet():
        inner = k.applications.ResNet50(include_top=False, pooling="avg", **size)
        return {
            "ResNet V2|53 convolutions and 49 batch norms": k.applications.ResNet50V2(**size),
            "depthwise|Conv1/kernel": k.applications.MobileNetV2(**size),
            "block1_conv1|13 convolutions and 0 batch norms": k.applications.VGG16(include_top=False, **size),
            "a model inside another": k.Sequential([k.Input((64, 64, 3)), inner, k.layers.Dense(7)]),
        }


@pytest.mark.parametrize("library", ["keras", "tf_keras"])
@pytest.mark.parametrize("way", ["whole.h5", "a.weights.h5"])
def test_other_models_of_keras_are_refused_in_words(library: str, way: str, tmp_path: Path) -> None:
    for said, model in others(library).items():
        with pytest.raises(CheckpointError, match=said) as caught:
            made(saved(model, tmp_path / way))
        assert "expected ResNet50, ResNet101 or ResNet152 (v1)" in str(caught.value)
        assert "\n" not in str(caught.value)
        (tmp_path / way).unlink()


@pytest.mark.parametrize("library", ["keras", "tf_keras"])
def test_a_model_whose_config_departs_is_refused_though_its_arrays_fit(library: str, tmp_path: Path) -> None:
    """Strides, epsilon, activations, wiring: what arrays do not show."""
    path = saved(built(library, 50), tmp_path / "a.keras")
    with zipfile.ZipFile(path) as archive:
        config = json.loads(archive.read("config.json"))
    assert differences(config, "resnet_v1_50", True, True) == []
    layers = {layer["config"]["name"]: n for n, layer in enumerate(config["config"]["layers"])}
    changes: list[tuple[str, str, Any]] = [
        ("conv3_block1_1_conv", "strides", [1, 1]),
        ("conv1_bn", "epsilon", 1e-3),
        ("conv2_block1_out", "activation", "gelu"),
        ("conv5_block2_2_conv", "dilation_rate", [2, 2]),
        ("pool1_pad", "padding", [[0, 1], [0, 1]]),
        ("predictions", "activation", "sigmoid"),
    ]
    for name, key, value in changes:
        other = copy.deepcopy(config)
        other["config"]["layers"][layers[name]]["config"][key] = value
        assert f"{name} has {key} {value!r}" in "".join(differences(other, "resnet_v1_50", True, True))
    other = copy.deepcopy(config)
    node = json.dumps(other["config"]["layers"][layers["conv4_block3_add"]]["inbound_nodes"])
    other["config"]["layers"][layers["conv4_block3_add"]]["inbound_nodes"] = json.loads(
        node.replace("conv4_block2_out", "conv4_block1_out")
    )
    assert differences(other, "resnet_v1_50", True, True) == [
        "conv4_block3_add follows conv4_block1_out, conv4_block3_3_bn, expected conv4_block2_out, conv4_block3_3_bn"
    ]
