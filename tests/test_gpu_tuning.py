"""Choices by timing on a gpu: the fastest way is kept, remembered on disk, and not timed again."""

import json
from pathlib import Path
from typing import Any

import pytest
from cuda_on_cpu.runtime import EmulatedRuntime
from gpu_planned import (
    END_POINTS,
    IMAGES,
    NETWORK,
    Weights,
    assert_near,
    planner_for,
)
from planned import use_copied_sources

from resnet_ref.kernels.vector.cache import VARIABLE, write
from resnet_ref.plan.gpu import tuning
from resnet_ref.plan.gpu.choice import MOST_WAYS, candidates
from resnet_ref.plan.gpu.lowering import Lowering
from resnet_ref.plan.gpu.program import GpuProgram
from resnet_ref.plan.gpu.weights import DeviceWeights
from resnet_ref.plan.plan import RESULT


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


@pytest.mark.parametrize("edited", ["kernels/conv2d/gpu.cu", "kernels/conv2d/gather.cuh", "plan/gpu/lowering.py"])
def test_after_an_edit_of_a_kernel_or_of_plans_choices_are_timed_anew(
    memory: Path, monkeypatch: pytest.MonkeyPatch, tmp_path: Path, tiny_variables: Weights, edited: str
) -> None:
    use_copied_sources(monkeypatch, tmp_path)
    timing, times = Timing(monkeypatch, "none"), []
    for text in ("", "", "\n// another line\n"):
        with (tmp_path / edited).open("a") as file:
            file.write(text)
        algorithms(tiny_variables)
        times.append(timing.times)
    assert times == [times[0], times[0], 2 * times[0]]


OTHERS = [("name", "another"), ("architecture", "sm_80"), ("multiprocessors", 131), ("software", "another driver")]


@pytest.mark.parametrize(("name", "value"), OTHERS)
def test_another_device_or_driver_is_timed_for_itself(
    memory: Path, monkeypatch: pytest.MonkeyPatch, tiny_variables: Weights, name: str, value: Any
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
