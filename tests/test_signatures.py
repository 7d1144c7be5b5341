"""The public functions have slim's signatures, so that a call ported from slim means the same."""

import inspect
from typing import Any

import pytest

from resnet_ref import resnet_utils, resnet_v1
from resnet_ref.resnet_utils import Block, resnet_arg_scope

V1: dict[str, Any] = {
    "blocks": ...,
    "num_classes": None,
    "is_training": True,
    "global_pool": True,
    "output_stride": None,
    "include_root_block": True,
    "spatial_squeeze": True,
    "store_non_strided_activations": False,
    "reuse": None,
    "scope": None,
}
WIDTH = {"min_base_depth": 8, "depth_multiplier": 1, "reuse": None}
SHALLOW = {name: V1[name] for name in V1 if name not in ("blocks", "include_root_block", "reuse", "scope")} | WIDTH
SQUEEZE, STORE = ("spatial_squeeze", True), ("store_non_strided_activations", False)
DEEP = dict([*list(SHALLOW.items())[:4], STORE, SQUEEZE, *WIDTH.items()])
SLIM: list[tuple[Any, str, dict[str, Any]]] = [
    (resnet_v1.resnet_v1, "inputs", V1),
    (resnet_v1.resnet_v1_50, "inputs", SHALLOW | {"scope": "resnet_v1_50"}),
    (resnet_v1.resnet_v1_101, "inputs", SHALLOW | {"scope": "resnet_v1_101"}),
    (resnet_v1.resnet_v1_152, "inputs", DEEP | {"scope": "resnet_v1_152"}),
    (resnet_v1.resnet_v1_200, "inputs", DEEP | {"scope": "resnet_v1_200"}),
    (
        resnet_v1.bottleneck,
        "inputs",
        {"depth": ..., "depth_bottleneck": ..., "stride": ..., "rate": 1, "outputs_collections": None, "scope": None}
        | {"use_bounded_activations": False},
    ),
    (resnet_utils.subsample, "inputs", {"factor": ..., "scope": None}),
    (
        resnet_utils.conv2d_same,
        "inputs",
        {"num_outputs": ..., "kernel_size": ..., "stride": ..., "rate": 1, "scope": None},
    ),
    (
        resnet_utils.stack_blocks_dense,
        "net",
        {"blocks": ..., "output_stride": None, "store_non_strided_activations": False, "outputs_collections": None},
    ),
]


@pytest.mark.parametrize(("function", "first", "expected"), SLIM)
def test_a_function_has_slims_parameters_in_slims_order_with_slims_defaults_and_ours_by_keyword_only(
    function: Any, first: str, expected: dict[str, Any]
) -> None:
    parameters = inspect.signature(function).parameters.values()
    positional = {p.name: p.default for p in parameters if p.kind is p.POSITIONAL_OR_KEYWORD}
    assert list(positional.items()) == [
        (name, inspect.Parameter.empty if default is ... else default)
        for name, default in [(first, ...), *expected.items()]
    ]
    extra = {p.name: p.default for p in parameters if p.kind is p.KEYWORD_ONLY}
    assert extra == {
        "weights": None,
        "device": "cpu",
        "dtype": "float32",
        "arg_scope": None,
        "batch_norm_updates": None,
    }
    assert len(positional) + len(extra) == len(parameters)


def test_the_other_signatures_are_slims_too() -> None:
    assert list(inspect.signature(resnet_v1.resnet_v1_block).parameters) == [
        "scope", "base_depth", "num_units", "stride",
    ]  # fmt: skip
    arg_scope = inspect.signature(resnet_arg_scope).parameters
    assert {p.name: p.default for p in arg_scope.values() if p.kind is p.POSITIONAL_OR_KEYWORD} == {
        "weight_decay": 0.0001,
        "batch_norm_decay": 0.997,
        "batch_norm_epsilon": 1e-5,
        "batch_norm_scale": True,
        "activation_fn": "relu",
        "use_batch_norm": True,
        "batch_norm_updates_collections": None,
    }
    assert Block._fields == ("scope", "unit_fn", "args")
    for function in (resnet_v1.resnet_v1, *(getattr(resnet_v1, name) for name in resnet_v1.UNITS)):
        assert function.default_image_size == 224
