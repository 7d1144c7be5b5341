"""Choices refined by timing: each way is tried inside the whole network, and the fastest is remembered on disk for the
same convolutions, device, driver, compiler and precision, and the same sources."""

import statistics
from collections.abc import Callable, Mapping, Sequence
from functools import partial

from resnet_ref.kernels.conv2d.tiles import Way
from resnet_ref.kernels.cuda.runtime import Runtime
from resnet_ref.plan.gpu.choice import Choose, Convolution, candidates
from resnet_ref.plan.gpu.lowering import Lowering
from resnet_ref.plan.gpu.program import GpuProgram
from resnet_ref.plan.remembering import remembered

RUNS = 5

Measure = Callable[[Lowering], Sequence[float]]  # each step's seconds


def tuned(runtime: Runtime, precision: str, lower: Callable[[Choose], Lowering], measure: Measure) -> Choose:
    """Chooses by what was timed, now or earlier. lower: the network under a choice."""
    convolutions: list[Convolution] = []

    def note(conv: Convolution) -> Way:
        convolutions.append(conv)
        return candidates(runtime, precision, conv)[0]

    lower(note)
    ways = {conv.kind: candidates(runtime, precision, conv) for conv in convolutions}
    about = (runtime.name, runtime.architecture, runtime.multiprocessors, runtime.software, precision)
    names = remembered(about, sorted(ways), lambda: _fastest(ways, lower, measure))

    def choose(conv: Convolution) -> Way:
        known = {way.name: way for way in candidates(runtime, precision, conv)}
        # With other end points other layers are fused, and what was not timed is left to the model.
        return known.get(names.get(conv.kind, ""), next(iter(known.values())))

    return choose


def medians(program: GpuProgram) -> Sequence[float]:
    """How long each step takes."""
    runs = [program.seconds() for _ in range(RUNS)]
    return [statistics.median(step) for step in zip(*runs, strict=True)]


def _fastest(
    ways: Mapping[str, Sequence[Way]], lower: Callable[[Choose], Lowering], measure: Measure
) -> dict[str, str]:
    """Kind of convolution -> the name of its fastest way."""
    seconds: dict[str, dict[str, list[float]]] = {kind: {} for kind in ways}
    for number in range(max(map(len, ways.values()), default=0)):
        lowered = lower(partial(_way, ways, number))
        for step, taken in zip(lowered.steps, measure(lowered), strict=True):
            if step.kind is not None:
                seconds[step.kind].setdefault(step.algorithm, []).append(taken)
    return {kind: min(taken, key=lambda way: statistics.mean(taken[way])) for kind, taken in seconds.items()}


def _way(ways: Mapping[str, Sequence[Way]], number: int, conv: Convolution) -> Way:
    """The convolution's way of that number, or its last."""
    return ways[conv.kind][min(number, len(ways[conv.kind]) - 1)]
