"""Choices refined by timing: each way to compute a convolution is tried inside the whole network, the fastest kept.

Alone, a convolution finds its weights in the cache, and another way may win. What was found is remembered on disk for
the same convolutions, instruction set, threads and processor.
"""

import hashlib
import json
import statistics
from collections.abc import Callable, Mapping, Sequence

import llvmlite.binding as llvm

from resnet_ref.kernels.conv2d.convolution import Convolution
from resnet_ref.kernels.vector import cache
from resnet_ref.kernels.vector.step import Step, Target
from resnet_ref.plan.choice import Method, candidates
from resnet_ref.plan.plan import Plan

ALGORITHM = "tuned"
RUNS = 7
_VERSION = 1  # of what is remembered, to be raised where kernels become faster in other proportions


def tuned(target: Target, make_plan: Callable[[Method], Plan]) -> Method:
    """Chooses by what was timed, now or earlier. make_plan: the network's plan under a choice."""
    convolutions: list[Convolution] = []

    def note(target: Target, conv: Convolution) -> Sequence[Step]:
        convolutions.append(conv)
        return candidates(conv, ALGORITHM, target.threads)[0](target, conv)

    make_plan(note)
    kinds = sorted({conv.kind for conv in convolutions})
    about = (_VERSION, kinds, target.library.isa.name, target.threads, llvm.get_host_cpu_name())
    key = f"choices-{hashlib.sha256(json.dumps(about).encode()).hexdigest()[:32]}"
    known = _remembered(key, kinds)
    if known is None:
        known = _timed(convolutions, make_plan)
        cache.write(key, json.dumps(known).encode())
    return _choose(known)


def _choose(names: Mapping[str, str]) -> Method:
    def choose(target: Target, conv: Convolution) -> Sequence[Step]:
        ways = {candidate.name: candidate for candidate in candidates(conv, ALGORITHM, target.threads)}
        # With other end points other layers are fused, and what was not timed is left to the model.
        return ways.get(names.get(conv.kind, ""), next(iter(ways.values())))(target, conv)

    return choose


def _remembered(key: str, kinds: Sequence[str]) -> dict[str, str] | None:
    data = cache.read(key)
    if data is None:
        return None
    known = json.loads(data)
    return known if isinstance(known, dict) and set(known) == set(kinds) else None


def _timed(convolutions: Sequence[Convolution], make_plan: Callable[[Method], Plan]) -> dict[str, str]:
    """Kind of convolution -> the name of its fastest way."""
    seconds: dict[str, dict[str, float]] = {}
    most = max((len(candidates(conv, ALGORITHM, 1)) for conv in convolutions), default=0)
    for number in range(most):
        chosen: dict[str, tuple[str, str]] = {}  # a layer's kind, and the way it is computed this time

        def choose(target: Target, conv: Convolution, number: int = number, chosen=chosen) -> Sequence[Step]:  # type: ignore[no-untyped-def]
            ways = candidates(conv, ALGORITHM, target.threads)
            way = ways[min(number, len(ways) - 1)]
            chosen[conv.name] = (conv.kind, way.name)
            return way(target, conv)

        for name, taken in _by_layer(make_plan(choose)).items():
            if name in chosen:
                kind, way = chosen[name]
                ways = seconds.setdefault(kind, {})
                ways[way] = ways.get(way, 0.0) + taken
    return {kind: min(ways, key=lambda way: ways[way]) for kind, ways in seconds.items()}


def _by_layer(plan: Plan) -> dict[str, float]:
    """Median seconds of each layer: a convolution's steps together, under its name."""
    program = plan.program
    program.seconds()
    runs = [program.seconds() for _ in range(RUNS)]
    layers: dict[str, float] = {}
    for step, *taken in zip(program.steps, *runs, strict=True):
        layers[step.layer] = layers.get(step.layer, 0.0) + statistics.median(taken)
    return layers
