"""A plan computes what it knows and refuses what it does not; and no two layers of a network share a name."""

from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
from networks import CASES

from resnet_ref import DeviceError, kernels, layers
from resnet_ref.arg_scope import BatchNorm
from resnet_ref.eager import Eager
from resnet_ref.handle import Handle
from resnet_ref.kernels import geometry
from resnet_ref.kernels.conv2d.choice import Way
from resnet_ref.kernels.vector.isa import isa_named
from resnet_ref.plan import lowering, report
from resnet_ref.plan.gpu import lowering as gpu_lowering
from resnet_ref.plan.plan import RESULT
from resnet_ref.plan.planner import Planner
from resnet_ref.random_weights import random_variables
from resnet_ref.shapes import Names, Shapes, Spec

Describe = Callable[[Handle], Any]


def planner(describe: Describe, weights: Any) -> Planner:
    return Planner(describe, weights, isa_named(None), 1, Way())


def avg_pool2d(net: Handle) -> Any:
    """A windowed operation of one input, as a newcomer might add it to Shapes alone."""
    x, window = net.value, geometry.valid(2, 2)
    n, h, w, c = x.shape
    value = net.interpreter._add("avg_pool2d", "pool", (x,), (n, window.out(h), window.out(w), c), window, window)
    return net.holding(value), net.end_points


def multiply(net: Handle) -> Any:
    """One of two inputs."""
    value = net.interpreter._add("multiply", "product", (net.value, net.value), net.value.shape)
    return net.holding(value), net.end_points


def negative(net: Handle) -> Any:
    """One of one input, without windows."""
    return net.holding(net.interpreter._add("negative", "sign", (net.value,), net.value.shape)), net.end_points


NEW = {"avg_pool2d": (avg_pool2d, "pool"), "multiply": (multiply, "product"), "negative": (negative, "sign")}


@pytest.mark.parametrize("op", NEW)
def test_both_lowerings_refuse_an_operation_they_do_not_know_and_name_it(op: str) -> None:
    describe, name = NEW[op]
    with pytest.raises(DeviceError, match=f"{name}: the cpu's plans have no operation '{op}'.*device=\"definition\""):
        planner(describe, {})(np.ones((1, 4, 6, 3), np.float32), [RESULT])
    with pytest.raises(DeviceError, match=f"{name}: the gpu's plans have no operation '{op}'"):
        gpu_lowering.Lowering(describe, None, (1, 4, 6, 3), [RESULT], None)  # type: ignore[arg-type]


def test_both_lowerings_know_the_operations_of_all_networks_and_no_others() -> None:
    seen = {layer.op for case in CASES.values() for layer in case.shapes().layers}
    assert set(lowering._STEPS) == seen
    assert set(gpu_lowering._STEPS) == seen


def test_a_name_that_is_taken_gets_the_first_free_number() -> None:
    name = Names()
    assert [name(scope) for scope in ("a", "a", "a_1", "a", "b")] == ["a", "a_1", "a_1_1", "a_2", "b"]


def two_means(net: Handle) -> Any:
    """A unit with two means, as squeeze-and-excite has them."""
    net = net.with_arg_scope(is_training=False)
    first = layers.spatial_mean(layers.conv2d(net, 16, 3, scope="a"))
    second = layers.spatial_mean(layers.conv2d(first, 16, 1, scope="b"))
    return second, second.end_points


def test_two_means_are_two_layers_in_every_report() -> None:
    shapes = Shapes()
    two_means(Handle(shapes, Spec((1, 32, 30, 3))))
    names = ["a", "global_pool", "b", "global_pool_1"]
    assert [layer.name for layer in shapes.layers] == names
    plan = planner(two_means, random_variables(shapes.variables)).plan((1, 32, 30, 3), [RESULT])
    assert [(row.layer, row.passes) for row in report.rows(plan)] == [(name, 1) for name in names]


def one_scope_two_ways(net: Handle) -> Any:
    """Three convolutions that share weights: normalised, normalised with a smaller epsilon, and with biases."""
    net = net.with_arg_scope(is_training=False)
    wide, narrow = (BatchNorm(decay=0.9, epsilon=epsilon, scale=True, is_training=False) for epsilon in (0.5, 1e-5))
    for normalizer in (wide, narrow, None):
        net = layers.conv2d(net, 5, 3, normalizer_fn=normalizer, activation_fn=None, scope="shared")
    return net, net.end_points


def test_convolutions_that_share_weights_but_not_batch_norm_are_packed_apart() -> None:
    images = np.random.default_rng(0).standard_normal((2, 9, 7, 5)).astype(np.float32)
    shapes = Shapes()
    one_scope_two_ways(Handle(shapes, Spec(images.shape)))
    weights = random_variables(shapes.variables)
    eager = Eager(kernels.on("definition"), weights, np.dtype("float64"))
    true = one_scope_two_ways(Handle(eager, images.astype(np.float64)))[0].value
    found = planner(one_scope_two_ways, weights)(images, [RESULT])[RESULT]
    np.testing.assert_allclose(found, true, atol=1e-5 * np.abs(true).max())
