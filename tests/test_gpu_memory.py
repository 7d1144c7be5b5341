"""Plans in a device's memory: which are kept, what goes where it is short, and threads that share it."""

import threading
from typing import Any

import numpy as np
import pytest
from cuda_on_cpu.runtime import EmulatedRuntime
from gpu_planned import (
    END_POINTS,
    IMAGES,
    CountingRuntime,
    Weights,
    assert_near,
    bytes_for,
    images_of,
    planner_for,
)

from resnet_ref import DeviceError
from resnet_ref.plan.gpu import plans
from resnet_ref.plan.gpu.plan import GpuPlan
from resnet_ref.plan.plan import RESULT


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
        start.wait(600)
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
        caller.join(600)
    assert not any(caller.is_alive() for caller in callers)
    assert not wrong
    assert run._plans._at_work == 0


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
