"""slim's functions called with arrays, with handles, from a user's own unit; and what they refuse."""

from typing import Any

import numpy as np
import numpy.typing as npt
import pytest
import slim_arithmetic as slim
from conftest import TINY
from variables import random_variables

from resnet_ref import DeviceError, ShapeError, WeightsError, kernels, layers, resnet_utils, resnet_v1
from resnet_ref.handle import Handle
from resnet_ref.kernels.arrays import HostArrays
from resnet_ref.network import Network
from resnet_ref.resnet_utils import Block, resnet_arg_scope
from resnet_ref.shapes import Shapes, Spec

RUNS = (("definition", "float64"), ("definition", "float32"), ("cpu", "float32"))
devices = pytest.mark.parametrize(("device", "dtype"), RUNS)
X = np.random.default_rng(1).standard_normal((2, 7, 10, 5)).astype(np.float32)
INFERENCE = resnet_arg_scope(is_training=False)


def variables_of(function: Any, *args: Any, shape: tuple[int, ...] = X.shape, **kwargs: Any) -> dict[str, Any]:
    """Random values for what a function needs, which it says when it is called with a handle."""
    shapes = Shapes()
    function(Handle(shapes, Spec(shape), arg_scope=kwargs.pop("arg_scope", INFERENCE)), *args, **kwargs)
    return random_variables(shapes.variables)


def close(found: npt.NDArray[Any], expected: npt.NDArray[Any], dtype: str) -> None:
    assert found.dtype == dtype
    assert found.shape == expected.shape
    tolerance = (1e-12 if dtype == "float64" else 5e-6) * float(np.abs(expected).max())
    np.testing.assert_allclose(found, expected, rtol=0, atol=tolerance)


@devices
@pytest.mark.parametrize(("depth", "stride", "rate"), [(5, 1, 1), (5, 2, 1), (8, 2, 1), (8, 1, 2), (5, 3, 1)])
@pytest.mark.parametrize("bounded", [False, True])
def test_bottleneck_is_slims_unit(device: str, dtype: str, depth: int, stride: int, rate: int, bounded: bool) -> None:
    variables = variables_of(resnet_v1.bottleneck, depth, 3, stride, rate)
    assert ("bottleneck_v1/shortcut/weights" in variables) == (depth != 5)
    variables["bottleneck_v1/conv3/BatchNorm/gamma"] *= 60  # so that every bound is reached
    found = resnet_v1.bottleneck(
        X, depth, 3, stride, rate, use_bounded_activations=bounded,
        weights=variables, device=device, dtype=dtype, arg_scope=INFERENCE,
    )  # fmt: skip
    expected = slim.bottleneck(X, variables, "bottleneck_v1", stride, rate, bounded)
    assert (expected.max() == 6) if bounded else (expected.max() > 6)
    close(found, expected, dtype)


@devices
@pytest.mark.parametrize(("size", "stride", "rate"), [(3, 1, 1), (3, 2, 1), (3, 1, 2), (5, 3, 1), (1, 2, 1), (7, 1, 1)])
def test_conv2d_same_pads_by_the_kernel_alone(device: str, dtype: str, size: int, stride: int, rate: int) -> None:
    variables = variables_of(resnet_utils.conv2d_same, 4, size, stride, rate, "c")
    found = resnet_utils.conv2d_same(
        X, 4, size, stride, rate, scope="c", weights=variables, device=device, dtype=dtype, arg_scope=INFERENCE
    )
    close(found, slim.layer(X, variables, "c", stride, rate), dtype)


@devices
@pytest.mark.parametrize(("factor", "scope"), [(1, None), (2, "x"), (3, None), (11, None)])
def test_subsample_needs_no_weights(device: str, dtype: str, factor: int, scope: str | None) -> None:
    found = resnet_utils.subsample(X, factor, scope, device=device, dtype=dtype)
    assert found.dtype == dtype
    np.testing.assert_array_equal(found, X[:, ::factor, ::factor])


def two_blocks(unit_fn: Any = resnet_v1.bottleneck) -> list[Block]:
    first = [{"depth": 5, "depth_bottleneck": 2, "stride": 1}, {"depth": 8, "depth_bottleneck": 3, "stride": 2}]
    second = [{"depth": 8, "depth_bottleneck": 2, "stride": 2}, {"depth": 6, "depth_bottleneck": 4, "stride": 1}]
    return [Block("a", unit_fn, first), Block("b", unit_fn, second)]


@devices
@pytest.mark.parametrize(
    ("output_stride", "how"),
    [
        (None, [(1, 1), (2, 1), (2, 1), (1, 1)]),
        (4, [(1, 1), (2, 1), (2, 1), (1, 1)]),
        (2, [(1, 1), (2, 1), (1, 1), (1, 2)]),
        (1, [(1, 1), (1, 1), (1, 2), (1, 4)]),
    ],
)
def test_stack_blocks_dense_trades_strides_for_rates(
    device: str, dtype: str, output_stride: int | None, how: list[tuple[int, int]]
) -> None:
    variables = variables_of(resnet_utils.stack_blocks_dense, two_blocks())
    found = resnet_utils.stack_blocks_dense(
        X, two_blocks(), output_stride, weights=variables, device=device, dtype=dtype, arg_scope=INFERENCE
    )
    expected: npt.NDArray[Any] = X
    for unit, (stride, rate) in zip(("a/unit_1", "a/unit_2", "b/unit_1", "b/unit_2"), how, strict=True):
        expected = slim.bottleneck(expected, variables, f"{unit}/bottleneck_v1", stride, rate)
    close(found, expected, dtype)


def doubled(net: Any, depth: int, depth_bottleneck: int, stride: int, rate: int = 1) -> Any:
    """A unit of one's own: two convolutions, no shortcut."""
    hidden = layers.conv2d(net, depth_bottleneck, 3, rate=rate, scope="first")
    return resnet_utils.conv2d_same(hidden, depth, 3, stride, scope="second")


@devices
def test_a_unit_of_ones_own_runs_in_a_block_and_in_a_network(device: str, dtype: str) -> None:
    blocks = two_blocks(doubled)
    call: dict[str, Any] = {"is_training": False, "include_root_block": False, "scope": "mine"}
    variables = variables_of(resnet_v1.resnet_v1, blocks, **call)
    net, end_points = resnet_v1.resnet_v1(X, blocks, **call, weights=variables, device=device, dtype=dtype)
    expected: npt.NDArray[Any] = X
    for unit, stride in (("a/unit_1", 1), ("a/unit_2", 2), ("b/unit_1", 2), ("b/unit_2", 1)):
        expected = slim.layer(expected, variables, f"mine/{unit}/first")
        expected = slim.layer(expected, variables, f"mine/{unit}/second", stride)
        close(end_points[f"mine/{unit}/second"], expected, dtype)
    close(net, expected.mean(axis=(1, 2), keepdims=True), dtype)
    assert list(end_points)[-3:] == ["mine/b/unit_2/second", "mine/b", "global_pool"]


def test_with_a_handle_a_function_only_describes() -> None:
    shapes = Shapes()
    handle = Handle(shapes, Spec((2, 7, 10, 5)), scope="outer", arg_scope=INFERENCE)
    unit = resnet_v1.bottleneck(handle, 8, 3, 2)
    assert isinstance(unit, Handle)
    assert (unit.shape, unit.scope, unit.arg_scope) == ((2, 4, 5, 8), "outer", INFERENCE)
    assert list(handle.end_points) == [
        f"outer/bottleneck_v1{name}" for name in ("/shortcut", "/conv1", "/conv2", "/conv3", "")
    ]
    assert shapes.variables["outer/bottleneck_v1/conv2/weights"] == (3, 3, 3, 3)
    net, _ = resnet_v1.resnet_v1_50(
        Handle(Shapes(), Spec((1, 64, 64, 3))), 7, arg_scope=resnet_arg_scope(use_batch_norm=False)
    )
    assert net.shape == (1, 7)
    assert "resnet_v1_50/conv1/biases" in net.interpreter.variables


def names(**changes: Any) -> set[str]:
    return set(variables_of(resnet_v1.bottleneck, 8, 3, 2, arg_scope=resnet_arg_scope(is_training=False, **changes)))


def test_the_arg_scope_decides_which_variables_there_are() -> None:
    unit, convs = "bottleneck_v1", ("shortcut", "conv1", "conv2", "conv3")
    weights = {f"{unit}/{conv}/weights" for conv in convs}
    assert names(use_batch_norm=False) == weights | {f"{unit}/{conv}/biases" for conv in convs}
    norm = {f"{unit}/{c}/BatchNorm/{n}" for c in convs for n in ("beta", "moving_mean", "moving_variance")}
    assert names(batch_norm_scale=False) == weights | norm
    assert names() == weights | norm | {f"{unit}/{conv}/BatchNorm/gamma" for conv in convs}


@devices
@pytest.mark.parametrize("changes", [{"use_batch_norm": False}, {"batch_norm_scale": False}])
def test_a_unit_under_another_arg_scope_computes_with_those_variables(
    device: str, dtype: str, changes: dict[str, Any]
) -> None:
    arg_scope = resnet_arg_scope(is_training=False, **changes)
    variables = variables_of(resnet_v1.bottleneck, 8, 3, 2, arg_scope=arg_scope)
    found = resnet_v1.bottleneck(X, 8, 3, 2, weights=variables, device=device, dtype=dtype, arg_scope=arg_scope)
    close(found, slim.bottleneck(X, variables, "bottleneck_v1", 2), dtype)


def root(**call: Any) -> npt.NDArray[Any]:
    """One convolution's network, called with is_training as given, by its end point."""
    blocks = [Block("a", doubled, [{"depth": 4, "depth_bottleneck": 3, "stride": 1}])]
    fixed: dict[str, Any] = {"include_root_block": False, "scope": "n"}
    variables = variables_of(resnet_v1.resnet_v1, blocks, **fixed)
    return np.asarray(resnet_v1.resnet_v1(X, blocks, **fixed, **call, weights=variables)[0])


def test_is_training_is_true_by_default_and_none_means_what_the_arg_scope_says() -> None:
    training, inference = root(), root(is_training=False)
    assert np.abs(training - inference).max() > 0.01
    off, on = resnet_arg_scope(is_training=False), resnet_arg_scope(is_training=True)
    for found, expected in [
        (root(is_training=True), training),
        (root(is_training=True, arg_scope=off), training),
        (root(is_training=False, arg_scope=on), inference),
        (root(is_training=None), training),
        (root(is_training=None, arg_scope=on), training),
        (root(is_training=None, arg_scope=off), inference),
    ]:
        np.testing.assert_array_equal(found, expected)


@devices
def test_training_normalises_by_the_batch_and_feeds_the_moving_averages(device: str, dtype: str) -> None:
    variables = variables_of(resnet_utils.conv2d_same, 4, 3, 2, 1, "c")
    updates: dict[str, Any] = {}
    found = resnet_utils.conv2d_same(
        X, 4, 3, 2, scope="c", weights=variables, device=device, dtype=dtype,
        arg_scope=resnet_arg_scope(batch_norm_decay=0.75), batch_norm_updates=updates,
    )  # fmt: skip
    y = slim.convolve(X, variables["c/weights"], 2)
    mean, variance, count = y.mean(axis=(0, 1, 2)), y.var(axis=(0, 1, 2)), 2 * 4 * 5
    normed = (y - mean) / np.sqrt(variance + slim.EPSILON) * variables["c/BatchNorm/gamma"]
    close(found, np.maximum(normed + variables["c/BatchNorm/beta"], 0), dtype)
    assert list(updates) == ["c/BatchNorm/moving_mean", "c/BatchNorm/moving_variance"]
    for name, fed in (("moving_mean", mean), ("moving_variance", variance * count / (count - 1))):
        moving = variables[f"c/BatchNorm/{name}"].astype(np.float64)
        close(updates[f"c/BatchNorm/{name}"], 0.75 * moving + 0.25 * fed, dtype)


def test_inference_updates_nothing_and_training_changes_no_weight() -> None:
    updates: dict[str, Any] = {}
    root(is_training=False, batch_norm_updates=updates)
    assert updates == {}
    variables = variables_of(resnet_v1.bottleneck, 8, 3, 2)
    before = {name: array.copy() for name, array in variables.items()}
    resnet_v1.bottleneck(X, 8, 3, 2, weights=variables, batch_norm_updates=updates)
    assert len(updates) == 8
    for name, array in variables.items():
        np.testing.assert_array_equal(array, before[name])


def bounded_top(unit: dict[str, Any], arg_scope: Any) -> float:
    """The greatest output of one unit whose residual is far above 6."""
    blocks = [Block("a", resnet_v1.bottleneck, [{"depth": 8, "depth_bottleneck": 3, "stride": 1, **unit}])]
    variables = variables_of(resnet_utils.stack_blocks_dense, blocks)
    variables["a/unit_1/bottleneck_v1/conv3/BatchNorm/beta"] += 50
    net = resnet_utils.stack_blocks_dense(X, blocks, weights=variables, arg_scope=arg_scope)
    return float(net.max())


def test_bounded_activations_come_from_the_arg_scope_or_the_block_and_the_block_beats_the_arg_scope() -> None:
    off, on = INFERENCE, resnet_arg_scope(is_training=False, use_bounded_activations=True)
    assert bounded_top({}, off) > 40
    assert bounded_top({}, on) == 6
    assert bounded_top({"use_bounded_activations": True}, off) == 6
    assert bounded_top({"use_bounded_activations": False}, on) > 40


@pytest.mark.parametrize("function", [resnet_v1.bottleneck, resnet_utils.stack_blocks_dense])
def test_outputs_collections_receives_every_named_output_as_an_array(function: Any) -> None:
    args = (8, 3, 2) if function is resnet_v1.bottleneck else (two_blocks(),)
    variables = variables_of(function, *args)
    outputs: dict[str, Any] = {}
    found = function(X, *args, outputs_collections=outputs, weights=variables, arg_scope=INFERENCE)
    last = "bottleneck_v1" if function is resnet_v1.bottleneck else "b"
    assert list(outputs)[-1] == last
    np.testing.assert_array_equal(outputs[last], found)
    assert all(isinstance(value, np.ndarray) for value in outputs.values())
    convs = {name.removesuffix("/weights") for name in variables if name.endswith("/weights")}
    assert convs <= set(outputs)


@pytest.mark.parametrize(
    "function",
    [resnet_utils.stack_blocks_dense, resnet_v1.bottleneck],
)
def test_outputs_collections_by_name_is_refused_because_there_is_no_graph(function: Any) -> None:
    args = (8, 3, 2) if function is resnet_v1.bottleneck else (two_blocks(),)
    with pytest.raises(
        ShapeError, match="outputs_collections must be a dict that receives the outputs, got 'end_points'"
    ):
        function(X, *args, outputs_collections="end_points", weights={})


def test_a_refused_call_leaves_outputs_collections_alone() -> None:
    outputs: dict[str, Any] = {}
    with pytest.raises(WeightsError):
        resnet_v1.bottleneck(X, 8, 3, 2, outputs_collections=outputs, weights={})
    assert outputs == {}


class NoArithmetic:
    """A device on which any kernel is a failure of the test."""

    device = "cpu"
    runtime = None
    arrays = HostArrays(device)

    def dtype(self, dtype: Any) -> Any:
        return np.dtype(dtype)

    def __getattr__(self, kernel: str) -> Any:
        raise AssertionError(f"{kernel} was called")


TINY_BLOCKS = Network.from_json(TINY).blocks


@pytest.mark.parametrize(
    ("call", "change", "error", "said"),
    [
        ({}, {"tiny/logits/biases": None}, WeightsError, "tiny/logits/biases [5] is missing"),
        ({}, {"tiny/logits/biases": np.ones(6)}, WeightsError, "has shape [6], expected [5]"),
        ({}, {"tiny/logits/biases": np.array(["a"] * 5)}, WeightsError, "dtype <U1, expected real numbers"),
        ({}, {"tiny/logits/biases": np.ones(5, complex)}, WeightsError, "complex128"),
        ({"num_classes": 7}, {}, WeightsError, "tiny/logits/weights has shape [1, 1, 20, 5], expected [1, 1, 20, 7]"),
        ({"scope": "other"}, {}, WeightsError, "The weights' scopes are tiny: pass that as scope="),
        ({"arg_scope": resnet_arg_scope(use_batch_norm=False)}, {}, WeightsError, "use_batch_norm=True"),
        ({"weights": None}, {}, WeightsError, "got NoneType; pass weights=load_weights(file)"),
        ({"weights": "w.h5"}, {}, WeightsError, "got str"),
        ({"output_stride": 6}, {}, ShapeError, "The output_stride needs to be a multiple of 4."),
        ({"output_stride": 16}, {}, ShapeError, "The target output_stride cannot be reached."),
        ({"global_pool": False}, {}, ShapeError, "can not squeeze axes 1 and 2"),
        ({"arg_scope": {"activation_fn": "relu"}}, {}, ShapeError, "must be what resnet_arg_scope() returns, got dict"),
        ({"inputs": X[0]}, {}, ShapeError, "images[None]"),
        ({"inputs": X[:, :0]}, {}, ShapeError, "none of H, W, C empty"),
        (
            {"blocks": [Block("a", doubled, [{"depth": 0, "depth_bottleneck": 1, "stride": 1}])]},
            {},
            ShapeError,
            "got 0",
        ),
        (
            {"blocks": [Block("a", doubled, [{"depth": 1, "depth_bottleneck": 1, "stride": 0}])]},
            {},
            ShapeError,
            "stride",
        ),
    ],
)
def test_every_error_comes_before_any_arithmetic(
    monkeypatch: pytest.MonkeyPatch,
    tiny_variables: dict[str, Any],
    call: dict[str, Any],
    change: dict[str, Any],
    error: type[Exception],
    said: str,
) -> None:
    weights = {name: array for name, array in {**tiny_variables, **change}.items() if array is not None}
    arguments = {
        "inputs": np.zeros((2, 32, 33, 3), np.float32),
        "blocks": TINY_BLOCKS,
        "num_classes": 5,
        "scope": "tiny",
        "weights": weights,
    } | call
    monkeypatch.setattr(kernels, "on", lambda device, threads=None: NoArithmetic())
    with pytest.raises(error) as caught:
        resnet_v1.resnet_v1(**arguments)
    assert said in str(caught.value)


def test_the_net_to_prove_no_arithmetic_catches_arithmetic(
    monkeypatch: pytest.MonkeyPatch, tiny_variables: dict[str, Any]
) -> None:
    monkeypatch.setattr(kernels, "on", lambda device, threads=None: NoArithmetic())
    with pytest.raises(AssertionError, match="conv2d was called"):
        resnet_v1.resnet_v1(np.zeros((2, 32, 33, 3), np.float32), TINY_BLOCKS, 5, scope="tiny", weights=tiny_variables)


@pytest.mark.parametrize("options", [{"device": "tpu"}, {"dtype": "float16"}, {"device": "cpu", "dtype": "float64"}])
def test_a_device_or_dtype_there_is_not_is_a_device_error(options: dict[str, Any]) -> None:
    with pytest.raises(DeviceError):
        resnet_utils.subsample(X, 2, **options)


def test_the_input_is_not_modified_and_may_be_read_only() -> None:
    x = X.copy()
    x.flags.writeable = False
    variables = variables_of(resnet_v1.bottleneck, 5, 3, 1)
    for device, dtype in RUNS:
        resnet_v1.bottleneck(x, 5, 3, 1, weights=variables, device=device, dtype=dtype)
    np.testing.assert_array_equal(x, X)


def test_any_mapping_of_real_arrays_will_do_as_weights_and_extra_ones_are_ignored() -> None:
    variables = variables_of(resnet_utils.conv2d_same, 4, 3, 2, 1, "c")
    expected = resnet_utils.conv2d_same(X, 4, 3, 2, scope="c", weights=variables, arg_scope=INFERENCE)
    wide = {name: np.asfortranarray(array.astype(np.float64)) for name, array in variables.items()}
    found = resnet_utils.conv2d_same(X, 4, 3, 2, scope="c", weights=wide | {"extra": X}, arg_scope=INFERENCE)
    np.testing.assert_array_equal(found, expected)


@pytest.mark.parametrize(
    ("images", "changes", "said"),
    [
        (np.zeros((0, 9, 9, 3), np.float32), {"is_training": True}, "batch norm in training mode needs an image"),
        (np.zeros((1, 9, 9, 3), np.float32), {"batch_norm_updates": []}, "batch_norm_updates must be a dict"),
        (np.zeros((1, 9, 9, 3), np.float32), {"is_training": "no"}, "is_training must be True, False or None"),
        (np.zeros((1, 9, 9, 3), np.float32), {"output_stride": "8"}, "output_stride must be None or a whole number"),
        (np.zeros((1, 9, 9, 3), np.float32), {"depth_multiplier": float("nan")}, "depth_multiplier must be a number"),
    ],
)
def test_a_mistake_is_found_before_any_arithmetic(monkeypatch, images, changes, said):
    def never(*args: Any, **kwargs: Any) -> None:
        raise AssertionError("computed")

    monkeypatch.setattr("resnet_ref.kernels.tier.Tier.conv2d", never)
    with pytest.raises(ShapeError, match=said):
        resnet_v1.resnet_v1_50(images, 3, weights={}, **changes)
