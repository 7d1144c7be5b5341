"""A network as plain data: what is written down is what is read back, and nothing impossible is accepted."""

import json
from typing import Any

import pytest
from conftest import TINY
from hypothesis import given, settings
from hypothesis import strategies as st

from resnet_ref.errors import WeightsError
from resnet_ref.network import FUNCTIONS, Network
from resnet_ref.resnet_utils import Block
from resnet_ref.resnet_v1 import bottleneck, resnet_v1_block

OUTPUT_STRIDES = (None, 4, 8, 16, 32)
scopes = st.sampled_from((None, "net", "a/b/c", "resnet_v1_50", "Ünï"))
arg_scopes = st.fixed_dictionaries(
    {},
    optional={
        "weight_decay": st.floats(0, 1),
        "batch_norm_decay": st.floats(0, 1),
        "batch_norm_epsilon": st.floats(0, 1),
        "batch_norm_scale": st.booleans(),
        "activation_fn": st.sampled_from((None, "relu", "relu6")),
        "use_batch_norm": st.booleans(),
        "use_bounded_activations": st.booleans(),
    },
)
COMMON = {
    "num_classes": st.sampled_from((None, 0, 1, 2, 1000)),
    "global_pool": st.booleans(),
    "spatial_squeeze": st.booleans(),
    "store_non_strided_activations": st.booleans(),
    "scope": scopes,
    "arg_scope": arg_scopes,
    "channels": st.integers(1, 5),
}
variants = st.fixed_dictionaries(
    {"function": st.sampled_from(FUNCTIONS[1:])},
    optional={
        **COMMON,
        "output_stride": st.sampled_from(OUTPUT_STRIDES),
        "min_base_depth": st.integers(1, 12),
        "depth_multiplier": st.one_of(st.floats(0, 2), st.integers(0, 2)),
    },
)
units = st.fixed_dictionaries(
    {"depth": st.integers(1, 9), "depth_bottleneck": st.integers(1, 9), "stride": st.integers(1, 3)},
    optional={"use_bounded_activations": st.booleans()},
)
blocks = st.lists(st.lists(units, min_size=1, max_size=3), min_size=1, max_size=3).map(
    lambda made: [{"scope": f"block{number}", "args": args} for number, args in enumerate(made)]
)
customs = st.fixed_dictionaries(
    {"function": st.just("resnet_v1"), "blocks": blocks},
    optional={**COMMON, "include_root_block": st.booleans()},
)


@given(data=st.one_of(variants, customs))
@settings(max_examples=80, deadline=None)
def test_every_valid_call_comes_back_from_json_as_the_same_network(data: dict[str, Any]) -> None:
    network = Network.from_json(data)
    again = Network.from_json(json.loads(json.dumps(network.to_json())))
    assert again == network
    assert list(again.variables().items()) == list(network.variables().items())
    assert network.to_json() == again.to_json()


@given(data=st.one_of(variants, customs))
@settings(max_examples=40, deadline=None)
def test_json_holds_what_was_given_and_of_the_arg_scope_only_what_differs_from_slims_defaults(
    data: dict[str, Any],
) -> None:
    found = Network.from_json(data).to_json()
    arg_scope = {name: value for name, value in data.get("arg_scope", {}).items() if value != DEFAULTS[name]}
    assert found.pop("arg_scope", {}) == arg_scope
    assert found.pop("channels", 3) == data.get("channels", 3)
    assert found == {name: value for name, value in data.items() if name not in ("arg_scope", "channels")}


DEFAULTS = {
    "weight_decay": 1e-4,
    "batch_norm_decay": 0.997,
    "batch_norm_epsilon": 1e-5,
    "batch_norm_scale": True,
    "activation_fn": "relu",
    "use_batch_norm": True,
    "use_bounded_activations": False,
}


@pytest.mark.parametrize(
    ("function", "count"),
    [("resnet_v1_50", 267), ("resnet_v1_101", 522), ("resnet_v1_152", 777), ("resnet_v1_200", 1017)],
)
def test_a_variant_has_slims_number_of_variables(function: str, count: int) -> None:
    variables = Network.from_json({"function": function, "num_classes": 1000}).variables()
    assert len(variables) == count
    assert next(iter(variables.items())) == (f"{function}/conv1/weights", (7, 7, 3, 64))
    assert list(variables.items())[-2:] == [
        (f"{function}/logits/weights", (1, 1, 2048, 1000)),
        (f"{function}/logits/biases", (1000,)),
    ]


def test_variables_of_a_custom_network_are_those_worked_out_by_hand() -> None:
    data = {**TINY, "channels": 2, "arg_scope": {"batch_norm_scale": False}, "include_root_block": False}
    variables = Network.from_json({**data, "blocks": TINY["blocks"][1:]}).variables()
    unit = "tiny/block2/unit_1/bottleneck_v1"
    normed = {"shortcut": (1, 1, 2, 20), "conv1": (1, 1, 2, 6), "conv2": (3, 3, 6, 6), "conv3": (1, 1, 6, 20)}
    expected: dict[str, tuple[int, ...]] = {}
    for conv, shape in normed.items():
        expected[f"{unit}/{conv}/weights"] = shape
        for name in ("beta", "moving_mean", "moving_variance"):
            expected[f"{unit}/{conv}/BatchNorm/{name}"] = shape[-1:]
    expected |= {"tiny/logits/weights": (1, 1, 20, 5), "tiny/logits/biases": (5,)}
    assert list(variables.items()) == list(expected.items())


@pytest.mark.parametrize(
    ("call", "scope"),
    [
        ({}, "resnet_v1_101"),
        ({"scope": "x/y"}, "x/y"),
        ({"scope": None}, "resnet_v1"),
    ],
)
def test_variables_start_with_the_scope_that_slim_gives_them(call: dict[str, Any], scope: str) -> None:
    network = Network.from_json({"function": "resnet_v1_101", **call})
    assert network.scope == scope
    assert all(name.startswith(f"{network.scope}/") for name in network.variables())


@pytest.mark.parametrize("num_classes", [None, 0])
def test_no_classes_mean_no_logits(num_classes: int | None) -> None:
    network = Network.from_json({"function": "resnet_v1_50", "num_classes": num_classes})
    assert network.num_classes is None
    assert len(network.variables()) == 265


def variant(**arguments: Any) -> dict[str, Any]:
    return {"function": "resnet_v1_50", **arguments}


def custom(*args: Any, scope: Any = "block1", **arguments: Any) -> dict[str, Any]:
    return {"function": "resnet_v1", "blocks": [{"scope": scope, "args": list(args)}], **arguments}


UNIT = {"depth": 4, "depth_bottleneck": 2, "stride": 1}

WRONG: list[tuple[Any, str]] = [
    (None, "a network is described as"),
    ([], "a network is described as"),
    ("resnet_v1_50", "a network is described as"),
    ({}, "got {}"),
    ({"function": "resnet_v1_34"}, "one of resnet_v1, resnet_v1_50, resnet_v1_101, resnet_v1_152, resnet_v1_200"),
    ({"function": []}, "a network is described as"),
    (variant(classes=7), "unknown argument 'classes', expected some of num_classes, global_pool"),
    (variant(**{"": 7}), "unknown argument ''"),
    (variant(inputs=7), "unknown argument 'inputs'"),
    (variant(is_training=True), "unknown argument 'is_training'"),
    (variant(reuse=True), "unknown argument 'reuse'"),
    (variant(weights={}), "unknown argument 'weights'"),
    (variant(include_root_block=False), "unknown argument 'include_root_block'"),
    (variant(num_classes=-1), "num_classes must be a whole number from 0 to 1048576, got -1"),
    (variant(num_classes=1 << 21), "num_classes must be a whole number from 0 to 1048576, got 2097152"),
    (variant(num_classes=10**400), "num_classes must be a whole number from 0 to 1048576, got 10000"),
    (variant(num_classes=7.0), "num_classes must be a whole number from 0 to 1048576, got 7.0"),
    (variant(num_classes="7"), "num_classes must be a whole number from 0 to 1048576, got '7'"),
    (variant(num_classes=True), "num_classes must be a whole number from 0 to 1048576, got True"),
    (variant(global_pool=1), "global_pool must be true or false, got 1"),
    (variant(global_pool=None), "global_pool must be true or false, got None"),
    (variant(spatial_squeeze="no"), "spatial_squeeze must be true or false"),
    (variant(depth_multiplier=None), "depth_multiplier must be a number from 0 to 1048576, got None"),
    (variant(depth_multiplier=-0.5), "depth_multiplier must be a number from 0 to 1048576, got -0.5"),
    (variant(depth_multiplier=float("nan")), "depth_multiplier must be a number from 0 to 1048576, got nan"),
    (variant(depth_multiplier=float("inf")), "depth_multiplier must be a number from 0 to 1048576, got inf"),
    (variant(min_base_depth=2.5), "min_base_depth must be a whole number from 0 to 1048576, got 2.5"),
    (variant(min_base_depth=0, depth_multiplier=0), "must be a whole number of at least 1, got 0"),
    (variant(output_stride=6), "The output_stride needs to be a multiple of 4."),
    (variant(output_stride=12), "The target output_stride cannot be reached."),
    (variant(output_stride=64), "The target output_stride cannot be reached."),
    (variant(output_stride="8"), "output_stride must be a whole number from 0 to 1048576, got '8'"),
    (variant(scope=""), "a scope must be text like resnet_v1_50 or a/b, got ''"),
    (variant(scope="a//b"), "a scope must be text like resnet_v1_50 or a/b, got 'a//b'"),
    (variant(scope="/a"), "a scope must be text like resnet_v1_50 or a/b, got '/a'"),
    (variant(scope=7), "a scope must be text like resnet_v1_50 or a/b, got 7"),
    (variant(channels=0), "channels must be a whole number from 1 to 1048576, got 0"),
    (variant(channels="3"), "channels must be a whole number from 1 to 1048576, got '3'"),
    (variant(channels=None), "channels must be a whole number from 1 to 1048576, got None"),
    (variant(arg_scope=7), '"arg_scope" must hold names and values, got 7'),
    (variant(arg_scope={"epsilon": 1}), "unexpected keyword argument 'epsilon'"),
    (variant(arg_scope={"max_pool2d_padding": "same"}), 'padding must be "SAME", "VALID" or "FIXED", got \'same\''),
    (variant(arg_scope={"activation_fn": "gelu"}), 'activation must be None, "relu" or "relu6", got \'gelu\''),
    (variant(arg_scope={"activation_fn": []}), "activation must be"),
    (variant(arg_scope={"batch_norm_decay": 2}), "batch_norm_decay must be from 0 to 1, got 2"),
    (variant(arg_scope={"batch_norm_decay": "x"}), "batch_norm_decay must be a number from 0 to 1048576, got 'x'"),
    (variant(arg_scope={"batch_norm_epsilon": -1}), "batch_norm_epsilon must be a number from 0 to 1048576, got -1"),
    (variant(arg_scope={"weight_decay": float("nan")}), "weight_decay must be a number from 0 to 1048576, got nan"),
    (variant(blocks=[]), '"blocks" must be a list for function "resnet_v1", and absent for the others'),
    ({"function": "resnet_v1"}, '"blocks" must be a list'),
    ({"function": "resnet_v1", "blocks": {}}, '"blocks" must be a list'),
    ({"function": "resnet_v1", "blocks": [7]}, 'a block is {"scope": text, "args": [units]}, got 7'),
    ({"function": "resnet_v1", "blocks": [{"scope": "a"}]}, "a block is"),
    ({"function": "resnet_v1", "blocks": [{"scope": "a", "args": 7}]}, "the network's description is wrong"),
    (custom(7), "a unit is {depth, depth_bottleneck, stride}, got 7"),
    (custom({}), "missing a required argument: 'depth'"),
    (custom({**UNIT, "rate": 2}), "the network's description is wrong"),
    (custom({**UNIT, "width": 2}), "a unit has depth, depth_bottleneck and stride, and no 'width'"),
    (custom({**UNIT, "depth": 0}), "depth must be a whole number from 1 to 1048576, got 0"),
    (custom({**UNIT, "depth": 2.5}), "depth must be a whole number from 1 to 1048576, got 2.5"),
    (custom({**UNIT, "stride": 1.5}), "stride must be a whole number from 1 to 1048576, got 1.5"),
    (custom({**UNIT, "stride": True}), "stride must be a whole number from 1 to 1048576, got True"),
    (custom({**UNIT, "depth": "4"}), "depth must be a whole number from 1 to 1048576, got '4'"),
    (custom(*[UNIT] * 2001), "more than 2000 units"),
    (custom(UNIT, {**UNIT, "depth": 5}, output_stride=6), "multiple of 4"),
]


@pytest.mark.parametrize(("data", "said"), WRONG)
def test_a_wrong_description_is_a_weights_error_that_says_what_was_expected(data: Any, said: str) -> None:
    with pytest.raises(WeightsError) as caught:
        Network.from_json(data)
    assert said in str(caught.value)
    assert len(str(caught.value)) < 700


@pytest.mark.parametrize(
    ("data", "said"),
    [
        (variant(channels=2.5), "channels must be a whole number"),
        (variant(arg_scope={"use_batch_norm": "no"}), "use_batch_norm must be true or false"),
        (variant(arg_scope={"batch_norm_epsilon": float("inf")}), "batch_norm_epsilon must be"),
        (custom({**UNIT, "use_bounded_activations": "no"}), "use_bounded_activations must be true or false"),
        (custom(UNIT, scope=None), "scope must be text"),
        (custom(UNIT, scope=""), "scope must be text"),
        (custom(UNIT, scope="a//b"), "scope must be text"),
    ],
)
def test_an_option_of_another_type_is_not_taken_for_what_it_resembles(data: Any, said: str) -> None:
    with pytest.raises(WeightsError, match=said):
        Network.from_json(data)


def test_a_network_without_blocks_is_the_root_and_the_logits() -> None:
    network = Network.from_json({"function": "resnet_v1", "blocks": [], "num_classes": 3})
    assert network.variables()["resnet_v1/logits/weights"] == (1, 1, 64, 3)
    assert Network.from_json(network.to_json()) == network


def test_blocks_of_the_public_api_are_taken_but_not_a_unit_function_of_ones_own() -> None:
    made = resnet_v1_block("block1", base_depth=2, num_units=3, stride=2)
    network = Network.from_json({"function": "resnet_v1", "blocks": [made]})
    assert [unit["stride"] for unit in network.to_json()["blocks"][0]["args"]] == [1, 1, 2]
    assert [unit["depth"] for unit in network.to_json()["blocks"][0]["args"]] == [8, 8, 8]
    with pytest.raises(WeightsError, match="block own has a unit_fn that is not bottleneck"):
        Network.from_json(
            {"function": "resnet_v1", "blocks": [Block("own", lambda net, **unit: bottleneck(net, **unit), [])]}
        )
