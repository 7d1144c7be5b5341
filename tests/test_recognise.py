"""From the names and shapes of a checkpoint's variables back to the call that made them, or a reason why not."""

import re
from typing import Any

import pytest
from conftest import TINY
from variables import random_variables, training_extras

from resnet_ref.errors import CheckpointError, WeightsError
from resnet_ref.network import Network
from resnet_ref.recognise import recognise

VARIANTS = ("resnet_v1_50", "resnet_v1_101", "resnet_v1_152", "resnet_v1_200")
Shapes = dict[str, tuple[int, ...]]


def variables(function: str = "resnet_v1_50", **call: Any) -> Shapes:
    return Network.from_json({"function": function, **call}).variables()


def recognised(shapes: Shapes, **overrides: Any) -> dict[str, Any]:
    network = recognise(shapes, overrides).network
    assert network.variables() == shapes
    return network.to_json()


def refused(shapes: Shapes, **overrides: Any) -> str:
    with pytest.raises(CheckpointError) as caught:
        recognise(shapes, overrides)
    assert "\n" not in str(caught.value)
    return str(caught.value)


@pytest.mark.parametrize("function", VARIANTS)
def test_each_variant_is_told_by_its_units(function: str) -> None:
    assert recognised(variables(function, num_classes=1000)) == {
        "function": function,
        "scope": function,
        "num_classes": 1000,
    }


@pytest.mark.parametrize("multiplier", [0.125, 0.25, 0.3, 0.37, 0.5, 0.75, 1.5, 2])
@pytest.mark.parametrize("function", VARIANTS[:2])
def test_the_depth_multiplier_found_is_the_one_that_was_typed(function: str, multiplier: float) -> None:
    found = recognised(variables(function, num_classes=7, depth_multiplier=multiplier))
    assert found.pop("depth_multiplier") == multiplier
    assert found == {"function": function, "scope": function, "num_classes": 7}


def test_the_full_width_is_slims_default_and_not_recorded() -> None:
    assert "depth_multiplier" not in recognised(variables(depth_multiplier=1))


@pytest.mark.parametrize("multiplier", [k / 1000 for k in (1, 16, 33, 127, 313, 499, 501, 777, 999, 1001, 1234, 3999)])
@pytest.mark.parametrize("least", [1, 8, 13, 40])
def test_whatever_the_width_the_network_found_has_the_same_variables(multiplier: float, least: int) -> None:
    shapes = variables(depth_multiplier=multiplier, min_base_depth=least)
    found = recognised(shapes)
    assert set(found) <= {"function", "scope", "depth_multiplier", "min_base_depth"}


@pytest.mark.parametrize(
    ("given", "found"),
    [
        ({"min_base_depth": 5, "depth_multiplier": 0}, {"min_base_depth": 5, "depth_multiplier": 0}),
        ({"min_base_depth": 12, "depth_multiplier": 0.125}, {"min_base_depth": 12, "depth_multiplier": 0.125}),
        ({"min_base_depth": 100}, {"min_base_depth": 100}),
        ({"depth_multiplier": 0}, {"depth_multiplier": 0}),
        ({"min_base_depth": 3}, {}),
        ({"min_base_depth": 512, "depth_multiplier": 0.5}, {"min_base_depth": 512, "depth_multiplier": 0}),
    ],
)
def test_the_least_base_depth_is_told_where_it_shows(given: dict[str, Any], found: dict[str, Any]) -> None:
    assert recognised(variables(**given)) == {"function": "resnet_v1_50", "scope": "resnet_v1_50", **found}


@pytest.mark.parametrize(("given", "found"), [(None, None), (0, None), (1, 1), (7, 7), (1000, 1000), (1001, 1001)])
def test_the_number_of_classes_is_the_depth_of_the_logits(given: int | None, found: int | None) -> None:
    assert recognised(variables(num_classes=given)).get("num_classes") == found


@pytest.mark.parametrize("scope", ["net", "a/b", "a/resnet_v1_50", "block1"])
def test_the_scope_may_be_any(scope: str) -> None:
    assert recognised(variables("resnet_v1_101", scope=scope))["scope"] == scope


@pytest.mark.parametrize(
    "arg_scope", [{"use_batch_norm": False}, {"batch_norm_scale": False}, {}], ids=["biases", "no gamma", "default"]
)
def test_biases_in_place_of_batch_norm_and_a_missing_gamma_are_seen(arg_scope: dict[str, Any]) -> None:
    found = recognised(variables(num_classes=3, arg_scope=arg_scope))
    assert found.get("arg_scope", {}) == arg_scope


def test_images_of_another_depth_are_seen() -> None:
    shapes = variables(num_classes=3, channels=1)
    assert recognised(shapes, channels=1)["channels"] == 1
    assert "conv1/weights has shape [7, 7, 1, 64], expected [7, 7, 3, 64]" in refused(shapes)


def two_networks() -> Shapes:
    return variables("resnet_v1_50", scope="tower/a", num_classes=2) | variables("resnet_v1_101", scope="tower/b")


def test_of_several_networks_one_must_be_chosen() -> None:
    assert "this holds several networks, tower/a, tower/b; choose one with --scope" in refused(two_networks())


@pytest.mark.parametrize(("scope", "function"), [("tower/a", "resnet_v1_50"), ("tower/b", "resnet_v1_101")])
def test_the_network_chosen_by_its_scope_is_taken_and_the_other_listed_as_skipped(scope: str, function: str) -> None:
    shapes = two_networks()
    found = recognise(shapes, {"scope": scope})
    assert (found.network.function, found.network.scope) == (function, scope)
    assert set(found.skipped) == {name for name in shapes if not name.startswith(f"{scope}/")}


def test_a_scope_that_is_not_there_is_refused_with_those_that_are() -> None:
    message = refused(variables(), scope="resnet_v1_101")
    assert "with scope resnet_v1_101" in message
    assert "the scopes with such blocks are resnet_v1_50" in message


SLOTS = {
    "optimizer slot": [
        "Momentum", "Momentum_1", "Adam", "Adam_1", "RMSProp", "RMSProp_1", "Adagrad", "Adadelta", "Adadelta_1", "Ftrl",
        "Ftrl_1", ".OPTIMIZER_SLOT/Momentum/momentum",
    ],
    "moving average of a weight": ["ExponentialMovingAverage"],
}  # fmt: skip


def test_what_training_leaves_beside_the_network_is_skipped_and_listed_with_its_reason() -> None:
    shapes = variables(num_classes=3, depth_multiplier=0.125)
    weight = "resnet_v1_50/conv1/weights"
    beside = {f"{weight}/{slot}": reason for reason, slots in SLOTS.items() for slot in slots}
    for name in ("global_step", "resnet_v1_50/mean_rgb", "beta1_power", "beta2_power", "save_counter"):
        beside[name] = "not part of the network"
    found = recognise(shapes | dict.fromkeys(beside, (1,)))
    assert found.network.variables() == shapes
    assert found.skipped == beside


def test_what_slims_own_training_writes_is_recognised() -> None:
    values = random_variables(variables(num_classes=3, depth_multiplier=0.125))
    extras = training_extras(values, "resnet_v1_50")
    shapes = {name: tuple(value.shape) for name, value in (values | extras).items()}
    found = recognise(dict(sorted(shapes.items())))
    assert found.network.variables() == {name: shapes[name] for name in values}
    assert set(found.skipped) == set(extras)


def test_a_layer_whose_own_name_resembles_a_slot_is_not_skipped() -> None:
    assert "Momentum/weights [3] is not a variable of the network" in refused(variables() | {"Momentum/weights": (3,)})


@pytest.mark.parametrize(
    ("change", "said"),
    [
        ({"resnet_v1_50/conv1/weights": None}, "resnet_v1_50/conv1/weights [7, 7, 3, 64] is missing"),
        ({"resnet_v1_50/logits/biases": None}, "resnet_v1_50/logits/biases [7] is missing"),
        ({"resnet_v1_50/logits/biases": (8,)}, "resnet_v1_50/logits/biases has shape [8], expected [7]"),
        (
            {"resnet_v1_50/block3/unit_2/bottleneck_v1/conv2/BatchNorm/beta": None},
            "block3/unit_2/bottleneck_v1/conv2/BatchNorm/beta [256] is missing",
        ),
        ({"resnet_v1_50/AuxLogits/weights": (3, 4)}, "AuxLogits/weights [3, 4] is not a variable of the network"),
        (
            {"resnet_v1_50/block1/unit_1/bottleneck_v1/conv1/weights": (1, 1, 64, 63)},
            "the base depths [63, 128, 256, 512]",
        ),
        ({"resnet_v1_50/block4/unit_3/bottleneck_v1/conv1/weights": None}, "2 units in block4; the known variants are"),
        (
            {"resnet_v1_50/block1/unit_4/bottleneck_v1/conv1/weights": (1, 1, 256, 64)},
            "has 4 units in block1, 4 units in block2, 6",
        ),
    ],
)
def test_what_is_missing_unexpected_or_of_another_shape_is_named(change: dict[str, Any], said: str) -> None:
    shapes = {n: s for n, s in {**variables(num_classes=7), **change}.items() if s is not None}
    assert said in refused(shapes)


BLOCK = "block{}/unit_1/bottleneck_v1/conv1/weights"


@pytest.mark.parametrize("name", ["logits/weights", BLOCK.format(1), BLOCK.format(2)])
@pytest.mark.parametrize("shape", [(), (4,), (1, 1, 1, 0)])
def test_a_variable_of_another_rank_or_without_elements_is_refused(name: str, shape: tuple[int, ...]) -> None:
    message = refused(variables(num_classes=7) | {f"resnet_v1_50/{name}": shape})
    assert "base depths" in message or name in message


@pytest.mark.parametrize(
    ("numbers", "said"),
    [
        ((1, 7, 3, 4), "3 units in block1, 6 units in block3, 3 units in block4, 4 units in block7"),
        ((2, 3, 4, 5), "3 units in block2, 4 units in block3, 6 units in block4, 3 units in block5"),
        ((0, 1, 2, 3), "3 units in block0, 4 units in block1, 6 units in block2, 3 units in block3"),
    ],
)
def test_blocks_that_are_numbered_otherwise_are_refused(numbers: tuple[int, ...], said: str) -> None:
    shapes = {}
    for name, shape in variables().items():
        if match := re.match(r"(.*/block)(\d)(.*)", name):
            name = f"{match[1]}{numbers[int(match[2]) - 1]}{match[3]}"
        shapes[name] = shape
    assert f"resnet_v1_50 has {said}; the known variants are" in refused(shapes)


def test_a_missing_first_unit_is_named() -> None:
    shapes = variables()
    del shapes[f"resnet_v1_50/{BLOCK.format(2)}"]
    assert f"resnet_v1_50/{BLOCK.format(2)}" in refused(shapes)


@pytest.mark.parametrize(
    ("shapes", "said"),
    [
        ({}, "It holds nothing"),
        ({"global_step": ()}, "this is no ResNet v1 of slim"),
        ({"InceptionV3/Conv2d_1a_3x3/weights": (3, 3, 3, 32)}, "It holds InceptionV3/Conv2d_1a_3x3/weights"),
        ({"resnet_v2_50/block1/unit_1/bottleneck_v2/conv1/weights": (1, 1, 64, 64)}, "no ResNet v1 of slim"),
        ({"block1/unit_1/bottleneck_v1/conv1/weights": (1, 1, 64, 64)}, "no ResNet v1 of slim"),
        (
            {"a/block1/unit_2/bottleneck_v1/conv1/weights": (1, 1, 64, 64)},
            "a has 2 units in block1; the known",
        ),
        (
            {"a/block0/unit_0/bottleneck_v1/conv1/weights": (1, 1, 64, 64)},
            "a has 0 units in block0; the known",
        ),
        ({f"a/block{'9' * 5000}/unit_1/bottleneck_v1/conv1/weights": (1, 1, 64, 64)}, "no ResNet v1 of slim"),
    ],
)
def test_what_is_no_resnet_v1_is_refused(shapes: Shapes, said: str) -> None:
    assert said in refused(shapes)


def test_a_network_of_ones_own_is_refused_until_it_is_described() -> None:
    shapes = Network.from_json(TINY).variables()
    message = refused(shapes)
    assert "tiny has 2 units in block1, 1 units in block2; the known variants are resnet_v1_50 (3, 4, 6, 3)" in message
    assert "Strides cannot be told from variables: describe the network with --network FILE.json" in message
    assert recognised(shapes, **TINY) == TINY


def test_a_network_that_is_described_in_full_may_name_its_blocks_in_any_way() -> None:
    call = {**TINY, "blocks": [{**block, "scope": f"stage_{n}"} for n, block in enumerate(TINY["blocks"])]}
    assert recognised(Network.from_json(call).variables(), **call) == call


def test_what_variables_do_not_show_may_be_said() -> None:
    shapes = variables(num_classes=7)
    assert recognised(shapes, output_stride=8)["output_stride"] == 8
    assert recognised(shapes, function="resnet_v1_50", depth_multiplier=1.0)["depth_multiplier"] == 1


@pytest.mark.parametrize(
    ("overrides", "said"),
    [
        ({"function": "resnet_v1_101"}, "block3/unit_7/bottleneck_v1/conv1/weights"),
        ({"depth_multiplier": 0.5}, "has shape [1, 1, 64, 256], expected [1, 1, 64, 128]"),
        ({"min_base_depth": 100}, "has shape [1, 1, 64, 256], expected [1, 1, 64, 400]"),
        ({"num_classes": 3}, "logits/weights has shape [1, 1, 2048, 7], expected [1, 1, 2048, 3]"),
        ({"num_classes": None}, "logits/weights [1, 1, 2048, 7] is not a variable of the network"),
    ],
)
def test_what_is_said_must_fit_the_variables(overrides: dict[str, Any], said: str) -> None:
    assert said in refused(variables(num_classes=7), **overrides)


@pytest.mark.parametrize("overrides", [{"output_stride": 6}, {"width": 3}, {"function": "resnet_v1_50", "blocks": []}])
def test_what_is_said_must_describe_a_network(overrides: dict[str, Any]) -> None:
    with pytest.raises(WeightsError, match="the network's description is wrong"):
        recognise(variables(), overrides)
