"""Choices refined by timing: each way to compute a convolution is tried inside the whole network, the fastest kept.

Alone, a convolution finds its weights in the cache, and another way may win. What was found is remembered on disk for
the same convolutions, target, threads and processor, the same LLVM, and the same sources.
"""

import statistics
from collections.abc import Callable, Iterable, Mapping, Sequence

import llvmlite.binding as llvm

from resnet_ref.kernels.conv2d.choice import candidates
from resnet_ref.kernels.conv2d.convolution import Convolution, Method
from resnet_ref.kernels.vector.step import Step, Target
from resnet_ref.plan.plan import Plan
from resnet_ref.plan.remembering import remembered

ALGORITHM = "tuned"
RUNS = 7


def tuned(target: Target, make_plan: Callable[[Method], Plan]) -> Method:
    """Chooses by what was timed, now or earlier. make_plan: the network's plan under a choice."""
    convolutions: list[Convolution] = []

    def note(target: Target, conv: Convolution) -> Sequence[Step]:
        convolutions.append(conv)
        return candidates(conv, ALGORITHM, target.threads)[0].method(target, conv)

    make_plan(note)
    kinds = sorted({conv.kind for conv in convolutions})
    isa = target.library.isa
    about = (isa.name, isa.target, llvm.llvm_version_info, target.threads, llvm.get_host_cpu_name())
    known = remembered(about, kinds, lambda: _timed(convolutions, make_plan))
    return _choose(known)


def _choose(names: Mapping[str, str]) -> Method:
    def choose(target: Target, conv: Convolution) -> Sequence[Step]:
        ways = {candidate.name: candidate for candidate in candidates(conv, ALGORITHM, target.threads)}
        # With other end points other layers are fused, and what was not timed is left to the model.
        return ways.get(names.get(conv.kind, ""), next(iter(ways.values()))).method(target, conv)

    return choose


def _timed(convolutions: Sequence[Convolution], make_plan: Callable[[Method], Plan]) -> dict[str, str]:
    """Kind of convolution -> the name of its fastest way."""
    seconds: dict[str, dict[str, float]] = {}
    for number in range(max((len(candidates(conv, ALGORITHM, 1)) for conv in convolutions), default=0)):
        made: dict[Step, tuple[str, str]] = {}  # the kind that a step is for, and the way it is computed this time
        for step, taken in _seconds(make_plan(_in_turn(number, made))):
            if step in made:
                kind, way = made[step]
                ways = seconds.setdefault(kind, {})
                ways[way] = ways.get(way, 0.0) + taken
    return {kind: min(ways, key=lambda way: ways[way]) for kind, ways in seconds.items()}


def _in_turn(number: int, made: dict[Step, tuple[str, str]]) -> Method:
    """Chooses each convolution's way of that number, or its last, and notes the steps."""

    def choose(target: Target, conv: Convolution) -> Sequence[Step]:
        ways = candidates(conv, ALGORITHM, target.threads)
        way = ways[min(number, len(ways) - 1)]
        steps = way.method(target, conv)
        made.update(dict.fromkeys(steps, (conv.kind, way.name)))
        return steps

    return choose


def _seconds(plan: Plan) -> Iterable[tuple[Step, float]]:
    """Each step's median."""
    program = plan.program
    program.seconds()
    runs = [program.seconds() for _ in range(RUNS)]
    return zip(program.steps, map(statistics.median, zip(*runs, strict=True)), strict=True)
