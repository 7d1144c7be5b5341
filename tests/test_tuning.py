"""Choices by timing: every way is tried, the fastest is kept, remembered on disk, and not timed again."""

import json
from collections.abc import Iterable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from conftest import TINY
from planned import ISAS, target_for, use_copied_sources

from resnet_ref.kernels.conv2d.choice import candidates
from resnet_ref.kernels.vector.cache import VARIABLE, write
from resnet_ref.kernels.vector.isa import Isa
from resnet_ref.kernels.vector.prepared import Program
from resnet_ref.network import Network
from resnet_ref.plan import lowering, tuning
from resnet_ref.plan.plan import RESULT, Plan
from resnet_ref.plan.tuning import tuned

DESCRIBE = Network.from_json(TINY).describe
SHAPE = (5, 29, 26, 3)


@pytest.fixture
def memory(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The folder where choices are remembered, empty."""
    monkeypatch.setenv(VARIABLE, str(tmp_path / "cache"))
    return tmp_path / "cache"


class Tuning:
    """Tunes the tiny network and counts its plans. steps: those of the plan that was made last."""

    def __init__(self, weights: Any, threads: int = 1, isa: str = ISAS[0]) -> None:
        self.weights, self.target, self.made = weights, target_for(isa, threads), 0

    def plan(self, choose: Any, outputs: Iterable[str] = (RESULT,)) -> Plan:
        self.made += 1
        return Plan(DESCRIBE, self.weights, self.target, SHAPE, list(outputs), choose)

    def algorithms(self) -> dict[str, str]:
        """How each convolution is computed, once tuned."""
        plan = self.plan(tuned(self.target, self.plan))
        return {step.name: step.algorithm for step in plan.program.steps if step.flops}


def prefer(monkeypatch: pytest.MonkeyPatch, fastest: str) -> None:
    """Lets a step of that algorithm seem to take a second, and any other two."""

    def seconds(program: Program) -> Any:
        return np.array([1.0 if step.algorithm == fastest else 2.0 for step in program.steps])

    monkeypatch.setattr(Program, "seconds", seconds)


@pytest.mark.parametrize("fastest", ["direct", "F(2x2) fused"])
def test_what_was_fastest_is_chosen_wherever_it_can_be(
    memory: Path, monkeypatch: pytest.MonkeyPatch, tiny_variables: Any, fastest: str
) -> None:
    prefer(monkeypatch, fastest)
    chosen = Tuning(tiny_variables).algorithms()
    threes = [name for name in chosen if name.endswith("unit_1/bottleneck_v1/conv2")]
    assert len(threes) == 2
    assert {chosen.pop(name) for name in threes} == {fastest}
    assert set(chosen.values()) == {"direct"}


def test_of_a_way_of_several_steps_all_count(
    memory: Path, monkeypatch: pytest.MonkeyPatch, tiny_variables: Any
) -> None:
    """Three steps of a second each are slower than one of two."""

    def seconds(program: Program) -> Any:
        return np.array([1.0 if "staged" in step.algorithm else 2.0 for step in program.steps])

    monkeypatch.setattr(Program, "seconds", seconds)
    assert not any("staged" in algorithm for algorithm in Tuning(tiny_variables).algorithms().values())


def test_choices_are_remembered_and_not_timed_again(
    memory: Path, monkeypatch: pytest.MonkeyPatch, tiny_variables: Any
) -> None:
    prefer(monkeypatch, "F(2x2) fused")
    first = Tuning(tiny_variables)
    chosen = first.algorithms()
    assert first.made == 2 + 3, "to see what there is, three ways, and the one that is used"
    assert len(list(memory.glob("choices-*"))) == 1
    monkeypatch.setattr(Program, "seconds", None)
    again = Tuning(tiny_variables)
    assert again.algorithms() == chosen
    assert again.made == 2


@pytest.mark.parametrize("other", [{"threads": 2}, {"isa": ISAS[-1]}])
def test_other_threads_and_instruction_sets_are_timed_for_themselves(
    memory: Path, tiny_variables: Any, other: dict[str, Any]
) -> None:
    for options in ({}, other):
        tuning_ = Tuning(tiny_variables, **options)
        tuning_.algorithms()
        assert tuning_.made == 5
    assert len(list(memory.glob("choices-*"))) == 2


@pytest.mark.parametrize("edited", ["kernels/vector/tile.py", "plan/fusing.py"])
def test_after_an_edit_of_a_kernel_or_of_plans_choices_are_timed_anew(
    memory: Path, monkeypatch: pytest.MonkeyPatch, tmp_path: Path, tiny_variables: Any, edited: str
) -> None:
    use_copied_sources(monkeypatch, tmp_path)
    made = []
    for text in ("", "", "\n# another line\n"):
        with (tmp_path / edited).open("a") as file:
            file.write(text)
        tuning_ = Tuning(tiny_variables)
        tuning_.algorithms()
        made.append(tuning_.made)
    assert made == [5, 2, 5]


@pytest.mark.parametrize(
    "other",
    [
        lambda patch: patch.setattr(tuning.llvm, "llvm_version_info", (1, 2, 3)),
        lambda patch: patch.setattr(tuning.llvm, "get_host_cpu_name", lambda: "another"),
        lambda patch: patch.setattr(Isa, "target", "another"),
    ],
    ids=["LLVM", "processor", "target"],
)
def test_another_llvm_processor_or_target_is_timed_for_itself(
    memory: Path, monkeypatch: pytest.MonkeyPatch, tiny_variables: Any, other: Any
) -> None:
    Tuning(tiny_variables).algorithms()
    other(monkeypatch)
    again = Tuning(tiny_variables)
    again.algorithms()
    assert again.made == 5


FOREIGN = {
    "damaged": None,
    "no JSON": b"\xff\x00",
    "a list": b"[1, 2]",
    "other kinds": b'{"a": "direct"}',
    "no names": "numbers",
}


@pytest.mark.parametrize("content", FOREIGN.values(), ids=FOREIGN)
def test_damaged_or_foreign_memory_is_timed_anew(memory: Path, tiny_variables: Any, content: Any) -> None:
    Tuning(tiny_variables).algorithms()
    (entry,) = memory.glob("choices-*")
    if content is None:
        entry.write_bytes(entry.read_bytes()[:-1])
    elif content == "numbers":
        known = json.loads(entry.read_bytes()[32:])
        write(entry.name, json.dumps({kind: [7] for kind in known}).encode())
    else:
        write(entry.name, content)
    again = Tuning(tiny_variables)
    again.algorithms()
    assert again.made == 5
    final = Tuning(tiny_variables)
    final.algorithms()
    assert final.made == 2


def test_a_remembered_way_that_there_is_no_more_gives_way_to_the_models(memory: Path, tiny_variables: Any) -> None:
    Tuning(tiny_variables).algorithms()
    (entry,) = memory.glob("choices-*")
    known = json.loads(entry.read_bytes()[32:])
    write(entry.name, json.dumps(dict.fromkeys(known, "F(6x6) fused")).encode())
    again = Tuning(tiny_variables)
    assert len(again.algorithms()) == 13
    assert again.made == 2


def test_passes_of_different_sizes_are_each_timed(
    memory: Path, monkeypatch: pytest.MonkeyPatch, tiny_variables: Any
) -> None:
    """Five images two at a time: convolutions of two images, and in the last pass of one."""
    monkeypatch.setattr(lowering, "CACHE", 10 * (15 * 13 * 64 + 29 * 26 * 3))
    Tuning(tiny_variables).algorithms()
    (entry,) = memory.glob("choices-*")
    known = json.loads(entry.read_bytes()[32:])
    assert {kind.partition("x")[0] for kind in known} == {"2", "1", "5"}
    again = Tuning(tiny_variables)
    again.algorithms()
    assert again.made == 2


def test_every_kind_gets_a_way_that_it_has(memory: Path, tiny_variables: Any) -> None:
    convolutions: list[Any] = []

    def note(target: Any, conv: Any) -> Any:
        convolutions.append(conv)
        return candidates(conv, tuning.ALGORITHM, 1)[0].method(target, conv)

    Tuning(tiny_variables).plan(note)
    Tuning(tiny_variables).algorithms()
    (entry,) = memory.glob("choices-*")
    known = json.loads(entry.read_bytes()[32:])
    assert set(known) == {conv.kind for conv in convolutions}
    for conv in convolutions:
        assert known[conv.kind] in {way.name for way in candidates(conv, tuning.ALGORITHM, 1)}


def test_end_points_that_were_not_timed_can_be_asked_for(memory: Path, tiny_variables: Any) -> None:
    """They keep layers apart that are timed together, so there are kinds of convolutions that nobody knows."""
    tuning_ = Tuning(tiny_variables)
    choose = tuned(tuning_.target, tuning_.plan)
    images = np.random.default_rng(0).standard_normal(SHAPE).astype(np.float32)
    conv3 = "tiny/block1/unit_1/bottleneck_v1/conv3"
    both = tuning_.plan(choose, [conv3, RESULT])(images)
    np.testing.assert_allclose(both[RESULT], tuning_.plan(choose)(images)[RESULT], atol=1e-6)
