"""verify against live slim: no fault is no departure, and each planted fault is the first that the report names."""

from collections.abc import Callable, Iterator, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any
from unittest import mock

import numpy as np
import pytest
from numpy.typing import NDArray
from PIL import Image
from variables import random_variables

from resnet_ref import load_weights, oracle, resnet_v1, save_weights
from resnet_ref.arg_scope import ArgScope
from resnet_ref.network import Network
from resnet_ref.oracle.record import Source, open_source, record
from resnet_ref.recording import open_recording
from resnet_ref.verification.report import to_json, to_text
from resnet_ref.verification.verify import Verification, verify

pytestmark = pytest.mark.oracle

BLOCKS = [("block1", 3, 2, 2), ("block2", 4, 2, 2), ("block3", 5, 3, 2), ("block4", 6, 1, 1)]


def call(blocks: Sequence[tuple[str, int, int, int]]) -> dict[str, Any]:
    """slim's, of such blocks, as plain data."""
    made = [resnet_v1.resnet_v1_block(*block) for block in blocks]
    described = [{"scope": block.scope, "args": [dict(unit) for unit in block.args]} for block in made]
    return {"function": "resnet_v1", "scope": "net", "num_classes": 7, "blocks": described}


CALL = call(BLOCKS)
NETWORK = Network.from_json(CALL)
PREPROCESSING = {"name": "vgg", "resize_side": 72, "height": 64, "width": 60}
MEANS = np.array([123.68, 116.78, 103.94], np.float32)
LABELS = [f"class {number}" for number in range(7)]
CONV2 = "net/block2/unit_2/bottleneck_v1/conv2/weights"
Build = Callable[[oracle.Nets, Any], Any]


@pytest.fixture(scope="module")
def variables() -> dict[str, NDArray[np.float32]]:
    return random_variables(NETWORK.variables())


@pytest.fixture(scope="module")
def images(tmp_path_factory: pytest.TempPathFactory) -> list[Path]:
    folder, rng = tmp_path_factory.mktemp("images"), np.random.default_rng(4)
    files = [folder / "a.png", folder / "b.png"]
    for file, size in zip(files, ((80, 91), (75, 75)), strict=True):
        Image.fromarray(rng.integers(0, 256, (*size, 3), np.uint8)).save(file)
    return files


@pytest.fixture(scope="module")
def weights(tmp_path_factory: pytest.TempPathFactory, variables: Any) -> Path:
    path = tmp_path_factory.mktemp("weights") / "net.h5"
    save_weights(path, variables, CALL, LABELS, PREPROCESSING)
    return path


@pytest.fixture(scope="module")
def source(weights: Path) -> Source:
    return open_source(weights)


@pytest.fixture(scope="module")
def slim(tmp_path_factory: pytest.TempPathFactory, source: Source, images: list[Path]) -> Path:
    """What slim computes without any fault."""
    path = tmp_path_factory.mktemp("slim") / "slim.h5"
    record(source, images, path)
    return path


def verified(weights: Path, recording: Path, **options: Any) -> Verification:
    with open_recording(recording) as opened:
        return verify(load_weights(weights), opened, **options)


def with_scope(source: Source, **changes: Any) -> Source:
    return replace(source, network=replace(NETWORK, arg_scope=replace(ArgScope(), **changes)))


@pytest.mark.parametrize("seed", range(20))
def test_without_a_fault_everything_agrees_and_no_cause_is_invented(seed: int, tmp_path: Path, images: Any) -> None:
    """Twenty networks, each with weights and sizes of its own, and from one block to all."""
    network = call(BLOCKS[: 1 + seed % 4])
    variables = random_variables(Network.from_json(network).variables(), seed)
    size = {"resize_side": 50 + 2 * seed, "height": 33 + seed, "width": 30 + seed}
    save_weights(tmp_path / "w.h5", variables, network, LABELS, {"name": "vgg", **size})
    record(open_source(tmp_path / "w.h5"), images, tmp_path / "r.h5", sample=None if seed % 2 else 300)
    for device in ("definition", "cpu"):
        found = verified(tmp_path / "w.h5", tmp_path / "r.h5", device=device)
        assert (found.agrees, found.first, found.named) == (True, None, ()), to_text(found, every=True)
        assert len(found.comparison.rows) == len(found.facts.end_points)
        assert found.inputs.max_error == 0
        assert found.comparison.worst.share < 0.7


# Faults of what slim was given: from the preprocessed arrays and the pixels to the arrays that slim saw instead.
ARRAYS: dict[str, tuple[str, Callable[[Any], Any]]] = {
    "BGR, the means following": ("BGR for RGB, means in the other order", lambda x: x[..., ::-1]),
    "BGR, the means staying": ("BGR for RGB", lambda x: (x + MEANS)[..., ::-1] - MEANS),
    "divided by 255": ("pixels divided by 255", lambda x: (x + MEANS) / np.float32(255)),
    "means forgotten": ("means not subtracted", lambda x: x + MEANS),
    "other means": ("other means: 100, 110.5, 120", lambda x: x + MEANS - np.array([100, 110.5, 120], np.float32)),
    "Inception's scale": ("pixels scaled to [-1, 1]", lambda x: (x + MEANS) / np.float32(127.5) - np.float32(1)),
    "PyTorch's scale": (
        "PyTorch's means and deviations",
        lambda x: ((x + MEANS) / 255 - [0.485, 0.456, 0.406]) / [0.229, 0.224, 0.225],
    ),
}


@pytest.mark.parametrize("fault", ARRAYS)
def test_arrays_that_were_prepared_otherwise_are_named_first(
    fault: str, tmp_path: Path, weights: Path, source: Source, images: list[Path]
) -> None:
    name, change = ARRAYS[fault]
    assert source.preprocessing is not None
    from recordings import prepared

    inputs = np.ascontiguousarray(change(prepared(load_weights(weights), images)), np.float32)
    record(source, images, tmp_path / "r.h5", inputs=inputs, sample=50)
    found = verified(weights, tmp_path / "r.h5", device="cpu")
    assert (found.first, found.named[0][0]) == ("inputs", name)
    assert found.comparison.first is None  # given slim's arrays, the network agrees


def fed(change: Callable[[Any], Any]) -> Build:
    """slim's call on other inputs than it is given: what weights trained on those amount to."""
    return lambda nets, inputs: oracle.calling(NETWORK)(nets, change(inputs))


def same_padding(nets: oracle.Nets, inputs: Any) -> Any:
    def conv2d_same(x: Any, outputs: int, size: int, stride: int, rate: int = 1, scope: str | None = None) -> Any:
        return nets.slim.conv2d(x, outputs, size, stride=stride, rate=rate, padding="SAME", scope=scope)

    with mock.patch.object(nets, "conv2d_same", conv2d_same):
        return oracle.calling(NETWORK)(nets, inputs)


def padded_pool(nets: oracle.Nets, inputs: Any, pads: list[int]) -> Any:
    own = nets.slim.max_pool2d

    @nets.slim.add_arg_scope
    def max_pool2d(x: Any, size: Any, stride: int = 2, padding: str = "SAME", scope: str | None = None) -> Any:
        if scope != "pool1":
            return own(x, size, stride=stride, padding=padding, scope=scope)
        padded = nets.tf.pad(x, [[0, 0], pads, pads, [0, 0]], constant_values=-1e30)
        return own(padded, size, stride=stride, padding="VALID", scope=scope)

    with mock.patch.object(nets.slim, "max_pool2d", max_pool2d):
        return oracle.calling(NETWORK)(nets, inputs)


def restrided(strides: tuple[int, ...]) -> Build:
    """The stride of each block in its first unit."""

    def build(nets: oracle.Nets, inputs: Any) -> Any:
        blocks = []
        for block, stride in zip(NETWORK.blocks, strides, strict=True):
            units = [{**unit, "stride": stride if number == 0 else 1} for number, unit in enumerate(block.args)]
            blocks.append(nets.Block(block.scope, nets.bottleneck, units))
        with oracle.scoped(nets, NETWORK.arg_scope):
            return nets.resnet_v1(inputs, blocks, 7, is_training=False, scope="net")

    return build


def strided_in_conv1(nets: oracle.Nets, inputs: Any) -> Any:
    """Each unit's stride in its first 1x1 convolution, as Caffe and Keras have it."""
    slim = nets.slim

    def unit(x: Any, depth: int, depth_bottleneck: int, stride: int, rate: int = 1) -> Any:
        with nets.tf.compat.v1.variable_scope("bottleneck_v1") as scope:
            if depth == x.shape[-1]:
                shortcut = nets.subsample(x, stride)
            else:
                shortcut = slim.conv2d(x, depth, 1, stride, activation_fn=None, scope="shortcut")
            y = slim.conv2d(x, depth_bottleneck, 1, stride, scope="conv1")
            y = slim.conv2d(y, depth_bottleneck, 3, 1, rate=rate, scope="conv2")
            y = slim.conv2d(y, depth, 1, 1, activation_fn=None, scope="conv3")
            return slim.utils.collect_named_outputs("net/_end_points", scope.name, nets.tf.nn.relu(shortcut + y))

    blocks = [nets.Block(b.scope, unit, list(b.args)) for b in NETWORK.blocks]
    with oracle.scoped(nets, NETWORK.arg_scope):
        return nets.resnet_v1(inputs, blocks, 7, is_training=False, scope="net")


# Faults of slim's run: (the name that must come first, what makes `record` run so).
RUNS: dict[str, tuple[str, Callable[[Source], dict[str, Any]]]] = {
    "weights for BGR": ("BGR for RGB", lambda s: {"build": fed(lambda x: x[..., ::-1])}),
    "weights for [0, 1]": ("pixels divided by 255", lambda s: {"build": fed(lambda x: (x + MEANS) / 255)}),
    "weights for x / 255": ("inputs divided by 255", lambda s: {"build": fed(lambda x: x / 255)}),
    "weights for raw pixels": ("means not subtracted", lambda s: {"build": fed(lambda x: x + MEANS)}),
    "means subtracted twice": ("means subtracted twice", lambda s: {"build": fed(lambda x: x - MEANS)}),
    "training mode": ("batch norm in training mode", lambda s: {"is_training": True}),
    "epsilon 1e-3": ("epsilon 0.001", lambda s: {"source": with_scope(s, batch_norm_epsilon=1e-3)}),
    "epsilon 1e-4": ("epsilon 0.0001", lambda s: {"source": with_scope(s, batch_norm_epsilon=1e-4)}),
    "epsilon 7e-4, as recorded": ("epsilon 0.0007", lambda s: {"source": with_scope(s, batch_norm_epsilon=7e-4)}),
    "SAME padding": ("SAME padding in strided convolutions", lambda s: {"build": same_padding}),
    "symmetric padding": (
        "pool1 padded symmetrically",
        lambda s: {"build": lambda nets, x: padded_pool(nets, x, [1, 1])},
    ),
    "no padding": ("pool1 without padding", lambda s: {"build": lambda nets, x: padded_pool(nets, x, [0, 0])}),
    "stride first": ("stride in the first unit of each block", lambda s: {"build": restrided((2, 2, 2, 1))}),
    "stride of Keras' blocks": (
        "stride in the first unit of the next block",
        lambda s: {"build": restrided((1, 2, 2, 2))},
    ),
    "stride in conv1": ("stride in the unit's first convolution", lambda s: {"build": strided_in_conv1}),
    "output_stride 8": (
        "output_stride=8",
        lambda s: {"source": replace(s, network=replace(NETWORK, arguments={**NETWORK.arguments, "output_stride": 8}))},
    ),
    "relu6": ("activation relu6", lambda s: {"build": oracle.calling(with_scope(s, activation_fn="relu6").network)}),
}


@pytest.mark.parametrize("fault", RUNS)
def test_a_fault_of_slims_run_is_named_first(
    fault: str, tmp_path: Path, weights: Path, source: Source, images: list[Path]
) -> None:
    name, how = RUNS[fault]
    record(images=images, output=tmp_path / "r.h5", **{"source": source, **how(source)})
    found = verified(weights, tmp_path / "r.h5", device="cpu")
    assert not found.agrees
    assert found.named[0][0] == name, to_text(found)
    assert name in to_text(found).splitlines()[1]
    assert to_json(found)["diagnosis"][0]["name"] == name
    assert not found.inputs.departs


def faulty_weights(variables: dict[str, Any]) -> Iterator[tuple[str, str, dict[str, Any]]]:
    """(what was done, the name that must come first, the variables that are then wrong)."""
    w = variables[CONV2]
    yield "height and width swapped", "transposed weights: height and width swapped", {CONV2: w.transpose(1, 0, 2, 3)}
    yield "turned", "transposed weights: turned by 180 degrees", {CONV2: w[::-1, ::-1]}
    every = {n: a for n, a in variables.items() if n.endswith("/conv2/weights")}
    swapped = {n: a.transpose(0, 1, 3, 2) for n, a in every.items()}
    yield "inputs and outputs swapped", "transposed weights: inputs and outputs swapped", swapped
    torch = {n: np.ascontiguousarray(a.transpose(3, 2, 0, 1)).reshape(a.shape) for n, a in every.items()}
    yield "PyTorch's order", "transposed weights: PyTorch's order of axes taken for slim's", torch
    conv1 = variables["net/conv1/weights"][:, :, ::-1]
    yield "conv1 for BGR", "transposed weights: input channels reversed", {"net/conv1/weights": conv1}
    pair = [n for n in variables if "/block3/unit_2/" in n]
    other = {n: variables[n.replace("/unit_2/", "/unit_3/")] for n in pair if "shortcut" not in n}
    yield "a unit's variables in another", "weights of another scope", other
    both = {**other, **{n.replace("/unit_2/", "/unit_3/"): variables[n] for n in other}}
    yield "two units exchanged", "weights of another scope", both
    damaged = w.copy()
    damaged[1, 1] *= 1.05
    yield "one layer damaged", f"damaged weights in {CONV2.removesuffix('/weights')}", {CONV2: damaged}
    beta = CONV2.replace("weights", "BatchNorm/beta")
    yield "a beta damaged", f"damaged weights in {CONV2.removesuffix('/weights')}", {beta: variables[beta] + 0.3}
    logits = {n: np.roll(variables[n], 1, -1) for n in ("net/logits/weights", "net/logits/biases")}
    yield "classes moved", "classes off by one", logits


@pytest.mark.parametrize("number", range(10))
def test_a_fault_of_the_weights_is_named_first(number: int, tmp_path: Path, variables: Any, slim: Path) -> None:
    faults = list(faulty_weights(variables))
    assert len(faults) == 10
    what, name, wrong = faults[number]
    save_weights(tmp_path / "w.h5", {**variables, **wrong}, CALL, LABELS, PREPROCESSING)
    found = verified(tmp_path / "w.h5", slim, device="cpu")
    assert not found.agrees, what
    assert found.named[0][0] == name, to_text(found)
    layers = {n.rpartition("/")[0].removesuffix("/BatchNorm") for n in wrong}
    assert found.first in layers, what


def test_a_damaged_layer_is_named_from_a_sampled_recording_too(
    tmp_path: Path, variables: Any, source: Source, images: list[Path]
) -> None:
    """Nothing can stand in for the layer then; its SHA-256 and the first departure tell."""
    record(source, images, tmp_path / "r.h5", sample=40)
    save_weights(tmp_path / "w.h5", {**variables, CONV2: variables[CONV2] * 1.02}, CALL, LABELS, PREPROCESSING)
    found = verified(tmp_path / "w.h5", tmp_path / "r.h5", device="cpu")
    assert found.named[0][0] == f"damaged weights in {CONV2.removesuffix('/weights')}"
    assert "every end point before it agrees" in found.named[0][1]


@pytest.mark.parametrize("by", [1, -1])
def test_labels_off_by_one_are_named(by: int, tmp_path: Path, variables: Any, slim: Path) -> None:
    labels = ["background", *LABELS[:-1]] if by == 1 else [*LABELS[1:], "another"]
    save_weights(tmp_path / "w.h5", variables, CALL, labels, PREPROCESSING)
    found = verified(tmp_path / "w.h5", slim, device="cpu")
    assert (found.first, found.named[0][0]) == ("labels", "labels off by one")


def test_labels_that_differ_otherwise_depart_without_a_cause(tmp_path: Path, variables: Any, slim: Path) -> None:
    labels = [*LABELS[:3], "odd", *LABELS[4:]]
    save_weights(tmp_path / "w.h5", variables, CALL, labels, PREPROCESSING)
    found = verified(tmp_path / "w.h5", slim, device="cpu")
    assert (found.first, found.named) == ("labels", ())
    assert "class 3 is 'odd' here, 'class 3' for slim" in to_text(found)


def test_two_faults_at_once_are_both_named(tmp_path: Path, weights: Path, source: Source, images: Any) -> None:
    network = with_scope(source, batch_norm_epsilon=1e-3).network
    build: Build = lambda nets, x: oracle.calling(network)(nets, x[..., ::-1])  # noqa: E731
    record(source, images, tmp_path / "r.h5", build=build)
    found = verified(weights, tmp_path / "r.h5", device="cpu")
    assert found.named[0][0] == "BGR for RGB and epsilon 0.001"


def test_a_fault_that_nobody_thought_of_gets_no_invented_cause(
    tmp_path: Path, weights: Path, source: Source, images: Any
) -> None:
    record(source, images, tmp_path / "r.h5", build=fed(lambda x: abs(x) + 3))
    found = verified(weights, tmp_path / "r.h5", device="cpu")
    assert (found.agrees, found.first, found.named) == (False, "net/conv1", ())
    assert "no cause that was tried brings slim's numbers back" in to_text(found)


def test_an_epsilon_below_rounding_is_said_to_be_indistinguishable(
    tmp_path: Path, weights: Path, source: Source, images: Any
) -> None:
    """keras.applications writes 1.001e-5."""
    record(with_scope(source, batch_norm_epsilon=1.001e-5), images, tmp_path / "r.h5")
    found = verified(weights, tmp_path / "r.h5", device="cpu")
    assert found.agrees
    assert any("1.001e-05" in note and "indistinguishable" in note for note in found.notes)


def test_another_scope_of_the_whole_network_is_matched_by_what_follows_it(
    tmp_path: Path, variables: Any, slim: Path
) -> None:
    renamed = {name.replace("net/", "other/model/", 1): array for name, array in variables.items()}
    save_weights(tmp_path / "w.h5", renamed, {**CALL, "scope": "other/model"}, LABELS, PREPROCESSING)
    found = verified(tmp_path / "w.h5", slim, device="cpu")
    assert found.agrees
    assert any("slim's scope is net, here it is other/model" in note for note in found.notes)


def test_the_pip_packages_older_network_is_compared_where_both_have_end_points(
    tmp_path: Path, weights: Path, source: Source, images: Any
) -> None:
    """tf_slim's own resnet_v1 has no global_pool, no squeeze, and logits [N, 1, 1, C]."""

    def build(nets: oracle.Nets, inputs: Any) -> Any:
        own = nets.slim.nets.resnet_v1
        blocks = [own.resnet_v1_block(*block) for block in BLOCKS]
        with nets.slim.arg_scope(own.resnet_arg_scope(weight_decay=0.0)):
            return own.resnet_v1(inputs, blocks, 7, is_training=False, scope="net")

    record(source, images, tmp_path / "r.h5", build=build)
    found = verified(weights, tmp_path / "r.h5", device="cpu")
    assert found.agrees, to_text(found)
    assert found.comparison.unrecorded == ["global_pool", "net/spatial_squeeze"]
