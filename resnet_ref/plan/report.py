"""What a plan consists of, and what each of its steps costs."""

import statistics
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from typing import Any

from resnet_ref.kernels.vector.step import Step
from resnet_ref.plan.gpu.plan import GpuPlan
from resnet_ref.plan.gpu.planner import GpuPlanner
from resnet_ref.plan.gpu.program import Launched
from resnet_ref.plan.plan import RESULT, Plan
from resnet_ref.plan.planner import Planner, most_images


@dataclass(frozen=True)
class Row:
    """A step, all its passes over parts of a batch together.

    passes: how often it runs. tasks: into how many each is cut (a gpu's blocks). flops: as the layer defines them, a
    multiply-add as two. weights: bytes in the kernel's layout. seconds: the median of some runs, where it was timed.
    """

    layer: str
    algorithm: str
    passes: int
    tasks: int
    flops: int
    weights: int
    seconds: float | None = None


def rows(plan: Plan | GpuPlan, runs: int = 0) -> list[Row]:
    """The plan's steps in order; timed, where runs > 0, one by one: while all threads wait for each other after every
    step, or by a gpu's clock."""
    program = plan.program
    for _ in range(min(runs, 3)):
        program.seconds()
    timed = [program.seconds() for _ in range(runs)]
    taken: Sequence[float] = [statistics.median(step) for step in zip(*timed, strict=True)]
    found: dict[str, list[int]] = {}
    steps: Sequence[Step | Launched] = program.steps
    for number, step in enumerate(steps):
        found.setdefault(step.name, []).append(number)
    return [
        Row(
            layer=name.replace("//", ", "),
            algorithm=steps[numbers[0]].algorithm,
            passes=len(numbers),
            tasks=steps[numbers[0]].tasks,
            flops=sum(steps[number].flops for number in numbers),
            weights=sum(array.nbytes for array in steps[numbers[0]].weights),
            seconds=sum(taken[number] for number in numbers) if runs else None,
        )
        for name, numbers in found.items()
    ]


@dataclass(frozen=True)
class Described:
    """A plan as `summary --plan` shows it. images: at a time, larger batches go in parts. machine: for a reader. isa: a
    gpu's architecture. threads: None on a gpu. bytes: of its memory, weights not counted."""

    images: int
    machine: str
    isa: str
    threads: int | None
    bytes: int
    rows: Sequence[Row]

    def to_json(self) -> dict[str, Any]:
        """Plain data."""
        return asdict(self)


def described(planner: Planner | GpuPlanner, shape: Sequence[int]) -> Described:
    """The plan for images of a shape [N, H, W, C], or for as many of them as go through it at once."""
    batch, height, width, channels = shape
    images = min(batch, most_images(height, width))
    plan = planner.plan((images, height, width, channels), [RESULT])
    return Described(images, *_machine(plan), plan.program.nbytes, rows(plan))


def _machine(plan: Plan | GpuPlan) -> tuple[str, str, int | None]:
    if isinstance(plan, GpuPlan):
        runtime = plan.program.runtime
        return f"{runtime.name}, {runtime.architecture}", runtime.architecture, None
    target = plan.program.target
    return f"{target.library.isa.name}, {target.threads} threads", target.library.isa.name, target.threads
