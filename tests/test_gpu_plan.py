"""Whole networks on a gpu by plans: any network, any outputs, any shape, in parts or several in flight."""

import gc
import itertools
import json
import threading
from collections.abc import Iterator
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from accuracy import EPS, error
from conftest import TINY
from cuda_on_cpu.runtime import EmulatedRuntime
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from planned import Array
from random_networks import networks
from tiers import GPU_TIERS
from variables import random_variables

from resnet_ref import DeviceError, resnet_v1
from resnet_ref.handle import Handle
from resnet_ref.kernels.conv2d.tiles import PRECISIONS
from resnet_ref.kernels.cuda.cupy_runtime import cupy_runtime
from resnet_ref.kernels.vector.cache import VARIABLE, write
from resnet_ref.network import Network
from resnet_ref.plan import planner as cpu_planner
from resnet_ref.plan.gpu import plans, tuning
from resnet_ref.plan.gpu.choice import MOST_WAYS, by_model, candidates
from resnet_ref.plan.gpu.lowering import ALIGNMENT, Lowering
from resnet_ref.plan.gpu.plan import GpuPlan
from resnet_ref.plan.gpu.planner import GpuPlanner
from resnet_ref.plan.gpu.program import GpuProgram
from resnet_ref.plan.gpu.weights import DeviceWeights
from resnet_ref.plan.plan import RESULT
from resnet_ref.plan.report import described, rows
from resnet_ref.resnet_utils import Block
from resnet_ref.shapes import Shapes, Spec

Weights = dict[str, Any]
RNG = np.random.default_rng(3)
IMAGES = (RNG.standard_normal((5, 29, 26, 3)) * 60).astype(np.float32)
NETWORK = Network.from_json(TINY)
END_POINTS = list(NETWORK.describe(Handle(Shapes(), Spec(IMAGES.shape)))[1])
NEAR = 2e-6


class CountingRuntime(EmulatedRuntime):
    """Notes captures and the allocations of each; launches that no graph makes."""

    def __init__(self, **options: Any) -> None:
        super().__init__(check=False, **options)
        self.captures = self.launches = self.allocations = 0

    def capture(self, run: Any) -> Any:
        self.captures += 1
        before = self.launches, self.allocations
        graph = super().capture(run)
        self.launches = before[0]
        assert self.allocations == before[1]
        return graph

    def launch(self, launch: Any) -> None:
        self.launches += 1
        super().launch(launch)

    def empty(self, shape: tuple[int, ...], dtype: Any) -> Any:
        self.allocations += 1
        return super().empty(shape, dtype)


@pytest.fixture(params=GPU_TIERS)
def runtime(request: pytest.FixtureRequest) -> Any:
    """A device, or what stands for one."""
    return cupy_runtime(0) if request.param == "gpu" else EmulatedRuntime(check=False)


def planner_for(weights: Weights, runtime: Any, algorithm: str = "auto") -> GpuPlanner:
    return GpuPlanner(NETWORK.describe, weights, runtime, "float32", algorithm)


def images_of(*shape: int, seed: int = 0) -> Array:
    return np.random.default_rng([seed, *shape]).normal(0, 60, (*shape, 3)).astype(np.float32)


def definition(images: Array, weights: Weights) -> dict[str, Array]:
    """All outputs of the tiny network in float64."""
    where = {"device": "definition", "dtype": "float64"}
    ends = resnet_v1.resnet_v1(images, NETWORK.blocks, 5, False, scope="tiny", weights=weights, **where)[1]
    return {**ends, RESULT: ends["predictions"]}


def assert_near(found: dict[str, Array], images: Array, weights: Weights) -> None:
    truth = definition(images, weights)
    for name, value in found.items():
        assert value.shape == truth[name].shape
        assert value.dtype == np.float32
        assert error(value, truth[name]) <= NEAR, name


def alone(describe: Any, weights: Weights, images: Array, names: list[str], runtime: Any = None) -> dict[str, Array]:
    """By a planner of its own."""
    return GpuPlanner(describe, weights, runtime or EmulatedRuntime(check=False))(images, names)


@settings(max_examples=40, suppress_health_check=[HealthCheck.too_slow])
@given(network=networks(), data=st.data())
def test_any_network_is_as_near_to_float64_as_the_definition_in_float32_is(network, data):
    """All end points, some, and only the result: fused less and less, and equally right."""
    truth, largest = network.run("definition", "float64"), network.float32_errors()
    some = data.draw(st.lists(st.sampled_from(list(truth)), unique=True))
    for names in (list(truth), some, []):
        found = alone(network.describe, network.weights, network.images, [*names, RESULT])
        assert list(found) == [*names, RESULT]
        found["predictions"] = found.pop(RESULT)
        for name, value in found.items():
            assert value.shape == network.described[name]
            assert error(value, truth[name]) <= 4 * largest[name] + 4 * EPS, name


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


def lowered(weights: Weights, names: list[str], runtime: Any, shape: tuple[int, ...] = IMAGES.shape) -> Lowering:
    return Lowering(NETWORK.describe, DeviceWeights(runtime, weights), shape, names, by_model(runtime, "float32"))


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


def bytes_for(weights: Weights, images: int, names: list[str]) -> int:
    return lowered(weights, names, EmulatedRuntime(check=False), (images, *IMAGES.shape[1:])).nbytes


@pytest.mark.parametrize("there", [False, True])
def test_a_batch_for_which_memory_is_short_goes_through_in_parts(tiny_variables: Weights, there: bool) -> None:
    runtime = EmulatedRuntime(check=False)
    run = planner_for(tiny_variables, runtime)
    run(IMAGES[:1, :1, :1], [RESULT])  # the weights are there
    images = runtime.upload(IMAGES) if there else IMAGES
    results = 4 * 5 * (15 * 13 * 64 + 5) + 1024 if there else 0
    runtime.memory_bytes = runtime._used + results + int(1.2 * bytes_for(tiny_variables, 2, [END_POINTS[0], RESULT]))
    found = run(images, [*END_POINTS[:1], RESULT])
    if there:
        found = {name: runtime.download(value) for name, value in found.items()}
    assert max(key[0][0] for key, _ in run._plans._idle.values()) < 5
    assert_near(found, IMAGES, tiny_variables)


def test_an_image_that_does_not_fit_is_an_error_that_says_how_many_bytes(tiny_variables: Weights) -> None:
    runtime = EmulatedRuntime(check=False)
    run = planner_for(tiny_variables, runtime)
    expected = run(IMAGES, [RESULT])[RESULT]
    weights = runtime._used - bytes_for(tiny_variables, 5, [RESULT])
    runtime.memory_bytes = weights + 100_000
    needed = bytes_for(tiny_variables, 1, END_POINTS)
    for images in (IMAGES, IMAGES[:1]):
        with pytest.raises(DeviceError, match=rf"{needed} are needed, \d+ are there; give fewer images"):
            run(images, END_POINTS)
    runtime.memory_bytes = 1 << 40
    np.testing.assert_allclose(run(IMAGES, [RESULT])[RESULT], expected, atol=1e-6)
    run(IMAGES[:1], END_POINTS)


def test_weights_that_do_not_fit_are_an_error_at_once(tiny_variables: Weights) -> None:
    runtime = EmulatedRuntime(check=False)
    runtime.memory_bytes = 10_000
    with pytest.raises(DeviceError, match="the weights take"):
        planner_for(tiny_variables, runtime)


def test_plans_are_kept_up_to_a_number_the_least_recently_used_go_first(tiny_variables: Weights) -> None:
    runtime = CountingRuntime()
    run, most = planner_for(tiny_variables, runtime), plans.MOST_PLANS
    shapes = [(1, 6 + k, 5, 3) for k in range(most + 1)]
    for shape in [*shapes[:most], *shapes[:most], shapes[0]]:
        run(np.zeros(shape, np.float32), [RESULT])
    assert runtime.captures == most
    run(np.zeros(shapes[most], np.float32), [RESULT])
    run(np.zeros(shapes[0], np.float32), [RESULT])
    assert runtime.captures == most + 1, "the first was used last, and is still there"
    run(np.zeros(shapes[1], np.float32), [RESULT])
    assert runtime.captures == most + 2
    assert len(run._plans._idle) == most


def test_plans_that_are_kept_take_at_most_half_of_the_memory(tiny_variables: Weights) -> None:
    runtime = EmulatedRuntime(check=False)
    run = planner_for(tiny_variables, runtime)
    run(IMAGES[:1, :6, :6], [RESULT])
    each = bytes_for(tiny_variables, 5, [RESULT])
    runtime.memory_bytes = runtime._used + 7 * each
    for number in range(6):
        run(images_of(5, 29, 26 + number), [RESULT])
    assert 2 * each <= run._plans._idle_bytes() <= 4 * each


def test_where_memory_is_short_other_plans_go(tiny_variables: Weights) -> None:
    runtime = CountingRuntime()
    run = planner_for(tiny_variables, runtime)
    run(IMAGES[:1, :6, :6], [RESULT])
    runtime.memory_bytes = runtime._used + int(1.2 * bytes_for(tiny_variables, 5, [RESULT]))
    for number in (0, 1, 0, 1):
        images = images_of(5, 29, 26 - number)
        assert_near(run(images, [RESULT]), images, tiny_variables)
    assert runtime.captures == 5
    assert len(run._plans._idle) == 1


def batches(count: int = 7) -> list[Array]:
    """Of varying shape, none among them."""
    shapes = [(2, 29, 26), (2, 29, 26), (1, 12, 7), (0, 12, 7), (3, 29, 26), (2, 29, 26), (5, 9, 9)]
    return [images_of(*shape, seed=number) for number, shape in enumerate(shapes[:count])]


def test_a_stream_gives_what_single_calls_give_in_order(tiny_variables: Weights, runtime: Any) -> None:
    names = [RESULT, "tiny/block1"]
    expected = [planner_for(tiny_variables, runtime)(images, names) for images in batches()]
    found = list(planner_for(tiny_variables, runtime).stream(batches(), names))
    assert len(found) == len(expected)
    for ours, right in zip(found, expected, strict=True):
        assert list(ours) == names
        for name in names:
            np.testing.assert_array_equal(ours[name], right[name])


def test_a_stream_takes_images_from_memory_that_its_source_uses_again(tiny_variables: Weights, runtime: Any) -> None:
    run = planner_for(tiny_variables, runtime)
    expected = [run(IMAGES + number, [RESULT])[RESULT] for number in range(5)]

    def source() -> Iterator[Array]:
        images = np.empty_like(IMAGES)
        for number in range(5):
            images[...] = IMAGES + number
            yield images
            images[...] = np.nan

    for found, right in zip(run.stream(source(), [RESULT]), expected, strict=True):
        np.testing.assert_array_equal(found[RESULT], right)


def test_a_stream_of_arrays_on_the_device_gives_such(tiny_variables: Weights, runtime: Any) -> None:
    run = planner_for(tiny_variables, runtime)
    mixed = [IMAGES, runtime.upload(IMAGES), IMAGES[:2], runtime.upload(IMAGES[:0])]
    found = [outputs[RESULT] for outputs in run.stream(mixed, [RESULT])]
    assert [runtime.owns(value) for value in found] == [False, True, False, True]
    np.testing.assert_array_equal(runtime.download(found[1]), found[0])


def idle_streams(run: GpuPlanner) -> bool:
    return all(not plan._stream._queue for _, plan in run._plans._idle.values())


def test_two_batches_are_in_flight_and_no_more(tiny_variables: Weights) -> None:
    runtime = EmulatedRuntime(check=False)
    run = planner_for(tiny_variables, runtime)
    asked: list[int] = []

    def source() -> Iterator[Array]:
        for number in range(6):
            asked.append(number)
            assert len(run._plans._flights) <= 2
            yield IMAGES[:2]

    results = run.stream(source(), [RESULT])
    for number, _ in enumerate(results):
        assert len(asked) == min(number + 3, 6), "the next is asked for while two are in flight"
        assert len(run._plans._flights) == min(2, max(0, 5 - number))
    assert len(run._plans._idle) == 2
    assert idle_streams(run)


def test_a_consumer_that_stops_early_leaves_nothing_running(tiny_variables: Weights) -> None:
    runtime = EmulatedRuntime(check=False)
    run = planner_for(tiny_variables, runtime)
    results = run.stream(itertools.repeat(IMAGES), [RESULT])
    next(results)
    assert run._plans._flights
    results.close()
    assert not run._plans._flights
    assert run._plans._at_work == 0
    assert len(run._plans._idle) == 2
    assert idle_streams(run)


def test_a_source_that_fails_leaves_nothing_running(tiny_variables: Weights) -> None:
    runtime = EmulatedRuntime(check=False)
    run = planner_for(tiny_variables, runtime)

    def source() -> Iterator[Array]:
        yield IMAGES
        yield IMAGES
        raise OSError("no more")

    with pytest.raises(OSError, match="no more"):
        list(run.stream(source(), [RESULT]))
    assert not run._plans._flights
    assert run._plans._at_work == 0
    assert idle_streams(run)


@pytest.mark.parametrize("there", [False, True])
def test_a_launch_that_fails_is_an_error_and_costs_its_plan_alone(tiny_variables: Weights, there: bool) -> None:
    runtime = EmulatedRuntime(check=False)
    run = planner_for(tiny_variables, runtime)
    images = runtime.upload(IMAGES) if there else IMAGES
    for known in (False, True):
        runtime.fail_next_launch = True
        with pytest.raises(DeviceError, match="failed"):
            run(images, [RESULT])
        assert (run._plans._at_work, len(run._plans._idle), len(run._plans._flights)) == (0, 0, 0), known
        gc.collect()
        assert_near(run(IMAGES, [RESULT]), IMAGES, tiny_variables)


def test_a_failure_in_the_middle_of_a_stream_lets_the_batches_before_it_pass(tiny_variables: Weights) -> None:
    runtime = EmulatedRuntime(check=False)
    run = planner_for(tiny_variables, runtime)
    results = run.stream([IMAGES] * 6, [RESULT])
    np.testing.assert_array_equal(next(results)[RESULT], next(results)[RESULT])
    runtime.fail_next_launch = True
    with pytest.raises(DeviceError, match="failed"):
        list(results)
    assert (run._plans._at_work, len(run._plans._flights)) == (0, 0)
    assert_near(run(IMAGES, [RESULT]), IMAGES, tiny_variables)


def test_images_that_do_not_fit_the_network_cost_nothing(tiny_variables: Weights) -> None:
    run = planner_for(tiny_variables, EmulatedRuntime(check=False))
    run(IMAGES, [RESULT])
    with pytest.raises(KeyError):
        run(IMAGES, ["nothing"])
    assert (run._plans._at_work, len(run._plans._flights)) == (0, 0)
    assert_near(run(IMAGES, [RESULT]), IMAGES, tiny_variables)


def test_streams_that_are_read_in_turn_share_memory_for_one_plan(tiny_variables: Weights) -> None:
    """What one has in flight is waited for, and put aside, when another needs the memory."""
    runtime = CountingRuntime()
    run = planner_for(tiny_variables, runtime)
    run(IMAGES[:1, :6, :6], [RESULT])
    runtime.memory_bytes = runtime._used + int(1.5 * bytes_for(tiny_variables, 5, [RESULT]))
    some, others = [[images_of(5, 29, 26 - k, seed=number) for number in range(3)] for k in (0, 1)]
    found = list(zip(run.stream(some, [RESULT]), run.stream(others, [RESULT]), strict=True))
    for images, outputs in zip([*some, *others], [*(a for a, _ in found), *(b for _, b in found)], strict=True):
        assert_near(outputs, images, tiny_variables)
    assert run._plans._at_work == 0


def test_a_stream_with_memory_for_one_plan_uses_it_again(tiny_variables: Weights) -> None:
    runtime = CountingRuntime()
    run = planner_for(tiny_variables, runtime)
    run(IMAGES[:1, :6, :6], [RESULT])
    runtime.memory_bytes = runtime._used + int(1.5 * bytes_for(tiny_variables, 5, [RESULT]))
    for outputs in run.stream([IMAGES] * 5, [RESULT]):
        assert_near(outputs, IMAGES, tiny_variables)
    assert runtime.captures == 2


def test_a_plan_takes_batches_with_tickets(tiny_variables: Weights, runtime: Any) -> None:
    """Two in turn, each with its own memory."""
    planner = planner_for(tiny_variables, runtime)
    one, other = (planner.plan(IMAGES.shape, [RESULT]) for _ in range(2))
    tickets = [one.submit(IMAGES), other.submit(IMAGES + 1)]
    first = tickets[0].result()[RESULT]
    tickets.append(one.submit(IMAGES + 2))
    assert_near({RESULT: first}, IMAGES, tiny_variables)
    assert_near(tickets[1].result(), IMAGES + 1, tiny_variables)
    assert_near(tickets[2].result(), IMAGES + 2, tiny_variables)
    assert not np.array_equal(first, tickets[2].result()[RESULT])


@pytest.mark.parametrize("is_short", [False, True])
def test_threads_that_call_at_once_get_what_one_gets(tiny_variables: Weights, is_short: bool) -> None:
    runtime = EmulatedRuntime(check=False)
    run = planner_for(tiny_variables, runtime)
    given = [IMAGES + number for number in range(3)]
    expected = [run(images, [RESULT])[RESULT] for images in given]
    on_device = [runtime.upload(images) for images in given]
    if is_short:
        runtime.memory_bytes = runtime._used + bytes_for(tiny_variables, 5, [RESULT])
    start, wrong = threading.Barrier(6), []

    def call(number: int, images: Any) -> None:
        start.wait(60)
        try:
            for _ in range(8):
                found = run(images, [RESULT])[RESULT]
                found = runtime.download(found) if runtime.owns(found) else found
                if not np.array_equal(found, expected[number]):
                    wrong.append(number)
        except BaseException as failure:
            wrong.append(failure)
            raise

    callers = [threading.Thread(target=call, args=(n % 3, x)) for n, x in enumerate([*given, *on_device])]
    for caller in callers:
        caller.start()
    for caller in callers:
        caller.join(60)
    assert not any(caller.is_alive() for caller in callers)
    assert not wrong
    assert run._plans._at_work == 0


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


@pytest.fixture
def memory(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The folder where choices are remembered, empty."""
    monkeypatch.setenv(VARIABLE, str(tmp_path / "cache"))
    return tmp_path / "cache"


class Timing:
    """Lets ways of one name seem to take a second, all others two; `times`: how often a whole program was timed."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch, fastest: str) -> None:
        self.times = 0

        def seconds(program: GpuProgram) -> list[float]:
            self.times += 1
            return [1.0 if step.algorithm == fastest else 2.0 for step in program.steps]

        monkeypatch.setattr(GpuProgram, "seconds", seconds)


def algorithms(weights: Weights, runtime: Any = None) -> list[str]:
    """How the convolutions are computed, tuned."""
    plan = planner_for(weights, runtime or EmulatedRuntime(check=False), "tuned").plan(IMAGES.shape, [RESULT])
    return [step.algorithm for step in plan.program.steps if step.flops]


def test_every_convolution_gets_the_fastest_of_the_models_best_ways(
    memory: Path, monkeypatch: pytest.MonkeyPatch, tiny_variables: Weights
) -> None:
    runtime, kinds = EmulatedRuntime(check=False), []

    def note(conv: Any) -> Any:
        kinds.append(conv)
        return candidates(runtime, "float32", conv)[0]

    Lowering(NETWORK.describe, DeviceWeights(runtime, tiny_variables), IMAGES.shape, [RESULT], note)
    ways = [[way.name for way in candidates(runtime, "float32", conv)] for conv in kinds]
    assert max(map(len, ways)) <= MOST_WAYS
    fastest = ways[0][-1]
    timing = Timing(monkeypatch, fastest)
    chosen = algorithms(tiny_variables)
    assert chosen == [fastest if fastest in there else there[0] for there in ways]
    assert chosen[0] != ways[0][0]
    assert timing.times == tuning.RUNS * max(map(len, ways))


def test_tuned_plans_compute_the_same(memory: Path, tiny_variables: Weights) -> None:
    run = planner_for(tiny_variables, EmulatedRuntime(check=False), "tuned")
    for _ in range(2):
        assert_near(run(IMAGES, [RESULT]), IMAGES, tiny_variables)
        assert_near(run(IMAGES, END_POINTS), IMAGES, tiny_variables)
    assert len(list(memory.glob("choices-*"))) == 1, "end points that were not timed are left to the model"


def test_choices_are_remembered_and_not_timed_again(
    memory: Path, monkeypatch: pytest.MonkeyPatch, tiny_variables: Weights
) -> None:
    timing = Timing(monkeypatch, "none")
    chosen = algorithms(tiny_variables)
    times = timing.times
    assert times > 0
    assert algorithms(tiny_variables) == chosen
    assert timing.times == times


@pytest.mark.parametrize(("name", "value"), [("name", "another"), ("architecture", "sm_80")])
def test_another_device_is_timed_for_itself(
    memory: Path, monkeypatch: pytest.MonkeyPatch, tiny_variables: Weights, name: str, value: str
) -> None:
    timing = Timing(monkeypatch, "none")
    algorithms(tiny_variables)
    times = timing.times
    other = EmulatedRuntime(check=False)
    setattr(other, name, value)
    algorithms(tiny_variables, other)
    assert timing.times == 2 * times
    assert len(list(memory.glob("choices-*"))) == 2


@pytest.mark.parametrize("content", ["cut", b"\xff\x00", b"[1, 2]", b'{"a": "b"}', "numbers"])
def test_damaged_or_foreign_memory_is_timed_anew(
    memory: Path, monkeypatch: pytest.MonkeyPatch, tiny_variables: Weights, content: Any
) -> None:
    timing = Timing(monkeypatch, "none")
    chosen = algorithms(tiny_variables)
    times = timing.times
    (entry,) = memory.glob("choices-*")
    if content == "cut":
        entry.write_bytes(entry.read_bytes()[:-1])
    elif content == "numbers":
        write(entry.name, json.dumps({kind: [7] for kind in json.loads(entry.read_bytes()[32:])}).encode())
    else:
        write(entry.name, content)
    assert algorithms(tiny_variables) == chosen
    assert timing.times == 2 * times


def test_a_remembered_way_that_there_is_no_more_gives_way_to_the_models(
    memory: Path, monkeypatch: pytest.MonkeyPatch, tiny_variables: Weights
) -> None:
    timing = Timing(monkeypatch, "none")
    algorithms(tiny_variables)
    times = timing.times
    (entry,) = memory.glob("choices-*")
    write(entry.name, json.dumps(dict.fromkeys(json.loads(entry.read_bytes()[32:]), "9x9")).encode())
    by_model_alone = planner_for(tiny_variables, EmulatedRuntime(check=False)).plan(IMAGES.shape, [RESULT])
    assert algorithms(tiny_variables) == [step.algorithm for step in by_model_alone.program.steps if step.flops]
    assert timing.times == times


def test_a_plan_is_forgotten_with_its_memory(tiny_variables: Weights) -> None:
    runtime = EmulatedRuntime(check=False)
    planner = planner_for(tiny_variables, runtime)
    plan: GpuPlan | None = planner.plan(IMAGES.shape, [RESULT])
    before = runtime._used
    assert plan is not None
    plan(IMAGES)
    nbytes = plan.program.nbytes
    plan = None
    assert runtime._used <= before - nbytes
