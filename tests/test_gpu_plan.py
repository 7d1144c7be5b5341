"""Whole networks on a gpu by plans: any network, any outputs, any shape that comes, in parts or whole."""

import itertools
from functools import partial
from typing import Any

import numpy as np
import pytest
from accuracy import error
from cuda_on_cpu.runtime import EmulatedRuntime
from gpu_planned import (
    END_POINTS,
    IMAGES,
    NEAR,
    NETWORK,
    RNG,
    CountingRuntime,
    Weights,
    assert_near,
    definition,
    images_of,
    lowered,
    planner_for,
    runtime_named,
)
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from planned import Array
from random_networks import networks
from tiers import GPU_TIERS
from variables import random_variables

from resnet_ref import DeviceError, resnet_v1
from resnet_ref.handle import Handle
from resnet_ref.kernels.conv2d.tiles import PRECISIONS
from resnet_ref.plan import planner as cpu_planner
from resnet_ref.plan.gpu.lowering import ALIGNMENT
from resnet_ref.plan.gpu.planner import GpuPlanner
from resnet_ref.plan.plan import RESULT
from resnet_ref.plan.report import described, rows
from resnet_ref.resnet_utils import Block
from resnet_ref.shapes import Shapes, Spec


@pytest.fixture(params=GPU_TIERS)
def runtime(request: pytest.FixtureRequest) -> Any:
    return runtime_named(request.param)


def alone(describe: Any, weights: Weights, images: Array, names: list[str], runtime: Any = None) -> dict[str, Array]:
    """By a planner of its own."""
    return GpuPlanner(describe, weights, runtime or EmulatedRuntime(check=False))(images, names)


@settings(max_examples=40, suppress_health_check=[HealthCheck.too_slow])
@given(network=networks(), data=st.data())
def test_any_network_is_as_near_to_float64_as_the_definition_in_float32_is(network, data):
    """All end points, some, and only the result: fused less and less, and equally right."""
    some = data.draw(st.lists(st.sampled_from(list(network.described)), unique=True))
    compute = partial(alone, network.describe, network.weights, network.images)
    network.require_right(compute, (list(network.described), some, []), allowed=4)


@pytest.mark.parametrize("order", [0, 1, 7])
@pytest.mark.parametrize("names", [END_POINTS, [RESULT]])
def test_no_kernel_of_a_plan_does_what_a_device_would_not_forgive(
    tiny_variables: Weights, order: int, names: list[str]
) -> None:
    run = planner_for(tiny_variables, EmulatedRuntime(check=True, order=order))
    for _ in range(2):
        assert_near(run(IMAGES[:2], names), IMAGES[:2], tiny_variables)


def test_changing_shapes_give_right_results(tiny_variables: Weights, runtime: Any) -> None:
    run = planner_for(tiny_variables, runtime)
    for number, shape in enumerate([(2, 29, 26), (1, 5, 7), (3, 29, 26), (2, 29, 26), (1, 1, 1), (2, 26, 29)]):
        images = images_of(*shape, seed=number)
        for names in ([RESULT], ["tiny/block1", RESULT], END_POINTS):
            found = run(images, names)
            assert list(found) == names
            truth = definition(images, tiny_variables)
            for name in names:
                assert error(found[name], truth[name]) <= 1e-5, name


def unit_network(**unit: Any) -> tuple[Any, Weights, dict[str, Any]]:
    """One bottleneck on IMAGES without root and pool: its call, weights and end points."""
    blocks = [Block("block1", resnet_v1.bottleneck, [{"depth": 12, "depth_bottleneck": 3, "stride": 1, **unit}])]
    call = partial(resnet_v1.resnet_v1, blocks=blocks, is_training=False, include_root_block=False, global_pool=False)
    shapes = Shapes()
    _, ends = call(Handle(shapes, Spec(IMAGES.shape)))
    return call, random_variables(shapes.variables), ends


@pytest.mark.parametrize("fused", [True, False])
def test_a_bounded_unit_clips_its_residual_before_the_sum(fused: bool, runtime: Any) -> None:
    """Where residuals are far larger than 6, and the shortcut, which are the images, is larger still."""
    call, weights, ends = unit_network(depth=3, use_bounded_activations=True)
    truth, true_ends = call(IMAGES, weights=weights, device="definition", dtype="float64")
    (conv3,) = [name for name in ends if name.endswith("conv3")]
    assert true_ends[conv3].min() < -10
    assert true_ends[conv3].max() > 10
    assert (np.maximum(IMAGES + true_ends[conv3], 0) > 6)[truth == 0].any(), "without the clip it would be another"
    found = alone(call, weights, IMAGES, [RESULT] if fused else [RESULT, conv3], runtime)
    assert error(found[RESULT], truth) <= 1e-4


@pytest.mark.parametrize("stride", [2, 3])
def test_a_subsampled_shortcut_is_read_with_its_stride_by_the_last_convolution(stride: int, runtime: Any) -> None:
    call, weights, ends = unit_network(depth=3, stride=stride)
    planner = GpuPlanner(call, weights, runtime)
    steps = planner.plan(IMAGES.shape, [RESULT]).program.steps
    assert [step.name.rpartition("/")[2] for step in steps] == ["conv1", "conv2", "conv3"]
    truth, _ = call(IMAGES, weights=weights, device="definition", dtype="float64")
    assert error(planner(IMAGES, [RESULT])[RESULT], truth) <= NEAR
    everything = planner.plan(IMAGES.shape, list(ends)).program.steps
    assert [step.algorithm for step in everything if not step.flops] == ["subsample", "pointwise"]


def test_a_network_of_no_layers_gives_the_images(runtime: Any) -> None:
    call = partial(resnet_v1.resnet_v1, blocks=[], is_training=False, include_root_block=False, global_pool=False)
    planner = GpuPlanner(call, {}, runtime)
    for _ in range(2):
        np.testing.assert_array_equal(planner(IMAGES, [RESULT])[RESULT], IMAGES)
    there = planner(runtime.upload(IMAGES), [RESULT])[RESULT]
    np.testing.assert_array_equal(runtime.download(there), IMAGES)


@pytest.mark.parametrize("names", [[RESULT], ["tiny/block1", RESULT], END_POINTS])
def test_buffers_that_are_needed_together_share_no_bytes(tiny_variables: Weights, names: list[str]) -> None:
    found = lowered(tiny_variables, names, EmulatedRuntime(check=False))
    steps = found.steps
    lives = {v.buffer: set(range(-1, len(steps) + 1)) for v in (found.images, *found.outputs.values())}
    for buffer in {buffer for step in steps for buffer in (*step.reads, *step.writes)} - set(lives):
        uses = [number for number, step in enumerate(steps) if buffer in (*step.reads, *step.writes)]
        lives[buffer] = set(range(uses[0], uses[-1] + 1))
    for a, b in itertools.combinations(lives, 2):
        apart = a.offset + a.nbytes <= b.offset or b.offset + b.nbytes <= a.offset
        assert apart or not lives[a] & lives[b]
    assert all(buffer.offset % ALIGNMENT == 0 for buffer in lives)
    assert found.nbytes < sum(buffer.nbytes for buffer in lives) + ALIGNMENT * len(lives)
    if names == [RESULT]:
        assert found.nbytes < sum(buffer.nbytes for buffer in lives), "and others do share"


def test_splits_of_a_product_have_a_workspace_of_their_own(tiny_variables: Weights) -> None:
    """Whichever way is taken for all convolutions: with small maps and deep products most are split."""
    runtime = EmulatedRuntime(check=True)
    wide = {"depth": 130, "depth_bottleneck": 66, "stride": 1}
    blocks = [Block("block1", resnet_v1.bottleneck, [wide, wide])]
    call = partial(resnet_v1.resnet_v1, blocks=blocks, num_classes=3, is_training=False, include_root_block=False)
    shapes = Shapes()
    call(Handle(shapes, Spec((1, 3, 3, 5))))
    weights = random_variables(shapes.variables)
    images = RNG.standard_normal((1, 3, 3, 5)).astype(np.float32)
    _, truth = call(images, weights=weights, device="definition", dtype="float64")
    planner = GpuPlanner(call, weights, runtime)
    steps = planner.plan(images.shape, [RESULT]).program.steps
    assert any(len(step.launches) == 2 for step in steps if step.flops)
    assert error(planner(images, [RESULT])[RESULT], truth["predictions"]) <= NEAR


def test_what_memory_held_before_a_run_does_not_matter(tiny_variables: Weights) -> None:
    runtime = EmulatedRuntime(check=False)
    plan = planner_for(tiny_variables, runtime).plan(IMAGES.shape, END_POINTS)
    first = plan(IMAGES)
    plan.program._arena.allocation.bytes[:] = 0xFF
    again = plan(IMAGES)
    assert_near(first, IMAGES, tiny_variables)
    for name, value in first.items():
        np.testing.assert_array_equal(again[name], value)


def test_a_shape_is_captured_once_without_allocating_and_then_runs_from_its_graph(tiny_variables: Weights) -> None:
    runtime = CountingRuntime()
    run = planner_for(tiny_variables, runtime)
    first = run(IMAGES, [RESULT])[RESULT]
    assert runtime.captures == 1
    made = runtime.launches, runtime.allocations
    assert made[0] > 10
    for _ in range(3):
        np.testing.assert_array_equal(run(IMAGES, [RESULT])[RESULT], first)
    assert (runtime.captures, runtime.launches, runtime.allocations) == (1, *made)
    run(IMAGES[:2], [RESULT])
    run(IMAGES[:2], ["tiny/block1"])
    assert runtime.captures == 3


def test_weights_are_on_the_device_once(tiny_variables: Weights) -> None:
    runtime = CountingRuntime()
    run = planner_for(tiny_variables, runtime)
    run(IMAGES, [RESULT])
    before = runtime.allocations
    run(IMAGES[:2], [RESULT])
    assert runtime.allocations == before + 1, "the plan's memory"


def test_images_on_the_device_give_new_arrays_there(tiny_variables: Weights, runtime: Any) -> None:
    run = planner_for(tiny_variables, runtime)
    first = run(runtime.upload(IMAGES), END_POINTS)
    assert all(runtime.owns(value) for value in first.values())
    run(runtime.upload(np.zeros_like(IMAGES)), END_POINTS)
    assert_near({name: runtime.download(value) for name, value in first.items()}, IMAGES, tiny_variables)
    host = run(IMAGES, END_POINTS)
    for name, value in first.items():
        np.testing.assert_array_equal(runtime.download(value), host[name])


def test_a_call_on_the_device_is_done_when_it_returns(tiny_variables: Weights) -> None:
    runtime = EmulatedRuntime(check=False)
    run = planner_for(tiny_variables, runtime)
    stream = runtime.stream()
    for _ in range(2):
        with stream:
            run(runtime.upload(IMAGES), [RESULT])
        assert not stream._queue


def test_a_call_in_another_stream_finds_the_plan_at_rest(tiny_variables: Weights, runtime: Any) -> None:
    run = planner_for(tiny_variables, runtime)
    expected = [run(IMAGES + number, [RESULT])[RESULT] for number in range(4)]
    streams, found = [runtime.stream() for _ in range(4)], []
    for number, stream in enumerate(streams):
        with stream:
            found.append(run(runtime.upload(IMAGES + number), [RESULT])[RESULT])
    for stream, value, right in zip(streams, found, expected, strict=True):
        with stream:
            np.testing.assert_array_equal(runtime.download(value), right)


def test_no_images_give_empty_arrays_where_they_came_from(tiny_variables: Weights, runtime: Any) -> None:
    run = planner_for(tiny_variables, runtime)
    found = run(IMAGES[:0], [RESULT, "tiny/block1"])
    assert {name: value.shape for name, value in found.items()} == {RESULT: (0, 5), "tiny/block1": (0, 4, 4, 12)}
    there = run(runtime.upload(IMAGES[:0]), [RESULT])[RESULT]
    assert runtime.owns(there)
    assert there.shape == (0, 5)


@pytest.mark.parametrize("at_once", [1, 2, 3, 4])
@pytest.mark.parametrize("there", [False, True])
def test_a_large_batch_goes_through_in_parts(
    tiny_variables: Weights, monkeypatch: pytest.MonkeyPatch, at_once: int, there: bool, runtime: Any
) -> None:
    monkeypatch.setattr(cpu_planner, "MOST_PIXELS", 29 * 26 * (at_once + 1) - 1)
    run = planner_for(tiny_variables, runtime)
    names = [*END_POINTS, RESULT]
    found = run(runtime.upload(IMAGES) if there else IMAGES, names)
    sizes = {1: {1}, 2: {2, 1}, 3: {3, 2}, 4: {3, 2}}[at_once]
    assert {key[0][0] for key, _ in run._plans._idle.values()} == sizes
    assert_near({n: runtime.download(v) if there else v for n, v in found.items()}, IMAGES, tiny_variables)


@pytest.mark.parametrize(
    ("options", "message"), [(("float16",), "precision must be one of"), (("float32", "fast"), "algorithm must be")]
)
def test_unknown_options_are_errors(tiny_variables: Weights, options: tuple[str, ...], message: str) -> None:
    with pytest.raises(DeviceError, match=message):
        GpuPlanner(NETWORK.describe, tiny_variables, EmulatedRuntime(check=False), *options)


# What each precision may err, of the largest: of tf32 and bfloat16 the roundings of 11 and 8 bits through ten layers.
LOOSE = {"float32": NEAR, "tf32x3": NEAR, "tf32": 5e-3, "bfloat16": 5e-2}


@pytest.mark.parametrize("precision", PRECISIONS)
def test_every_precision_errs_as_much_as_its_bits_let_it(tiny_variables: Weights, precision: str, runtime: Any) -> None:
    truth = definition(IMAGES, tiny_variables)
    found = GpuPlanner(NETWORK.describe, tiny_variables, runtime, precision)(IMAGES, END_POINTS)
    errors = {name: error(value, truth[name]) for name, value in found.items()}
    assert max(errors.values()) <= LOOSE[precision]
    if precision in ("tf32", "bfloat16"):
        assert max(errors.values()) > 1e-5


def test_a_plan_tells_what_it_consists_of(tiny_variables: Weights) -> None:
    runtime = EmulatedRuntime(check=True)
    planner = planner_for(tiny_variables, runtime)
    found = described(planner, (2, 29, 26, 3))
    assert (found.machine, found.isa, found.threads, found.images) == ("emulated, sm_90", "sm_90", None, 2)
    plan = planner.plan((2, 29, 26, 3), [RESULT])
    assert found.bytes == plan.program.nbytes
    timed = rows(plan, 2)
    assert [row.layer for row in timed] == [row.layer for row in found.rows]
    assert all(row.seconds is not None and row.seconds > 0 for row in timed)
    flops = sum(layer.flops for layer in NETWORK.shapes(2, 29, 26).layers)
    assert sum(row.flops for row in timed) == flops
    first = timed[0]
    assert (first.layer, first.passes, first.weights) == ("tiny/conv1", 1, 4 * (7 * 7 * 3 * 64 + 64))
    assert all(row.tasks > 0 for row in timed)
