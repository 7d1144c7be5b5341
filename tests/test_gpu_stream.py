"""Batches in flight on a gpu: in order, equal to single calls, and nothing left running."""

import gc
import itertools
from collections.abc import Iterator
from typing import Any

import numpy as np
import pytest
from cuda_on_cpu.runtime import EmulatedRuntime
from gpu_planned import (
    IMAGES,
    Weights,
    assert_near,
    images_of,
    planner_for,
    runtime_named,
)
from planned import Array
from tiers import GPU_TIERS

from resnet_ref import DeviceError
from resnet_ref.plan.gpu.planner import GpuPlanner
from resnet_ref.plan.plan import RESULT


@pytest.fixture(params=GPU_TIERS)
def runtime(request: pytest.FixtureRequest) -> Any:
    return runtime_named(request.param)


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
