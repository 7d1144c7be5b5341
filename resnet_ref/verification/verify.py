"""verify: a weights file against a recording of slim, end point by end point, with the reason where they depart."""

import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from itertools import chain
from pathlib import Path

from resnet_ref.recording import Facts, Recording
from resnet_ref.verification.comparison import Comparison, compare
from resnet_ref.verification.diagnosis import Cause, diagnose
from resnet_ref.verification.hypotheses import hypotheses
from resnet_ref.verification.images import Inputs, check_inputs
from resnet_ref.verification.setup import Setup
from resnet_ref.verification.weights import damaged, differing, exchanged
from resnet_ref.weights_file import Weights


@dataclass(frozen=True)
class Labels:
    """Do both sides name the classes alike? cause: what explains it where they do not."""

    checked: bool
    departs: bool = False
    says: str = ""
    cause: tuple[str, str] | None = None


@dataclass(frozen=True)
class Verification:
    """What `verify` found.

    device, precision: of the run. inputs, labels: how these compare. comparison: the end points. causes: why they
    depart, likeliest first. other_variables: our variables that are not bit for bit those slim ran with. seconds: of
    each part.
    """

    weights: Path
    recording: Path
    facts: Facts
    scope: str
    device: str
    precision: str
    inputs: Inputs
    labels: Labels
    comparison: Comparison
    causes: tuple[Cause, ...] = ()
    other_variables: tuple[str, ...] = ()
    seconds: Mapping[str, float] = field(default_factory=dict)

    @property
    def agrees(self) -> bool:
        """Whether inputs, every end point, and labels agree within what is allowed."""
        return self.first is None

    @property
    def first(self) -> str | None:
        """The first thing that departs: "inputs", an end point's name, "labels", or None."""
        if self.inputs.departs:
            return "inputs"
        if self.comparison.first is not None:
            return self.comparison.rows[self.comparison.first].name
        return "labels" if self.labels.departs else None

    @property
    def named(self) -> tuple[tuple[str, str], ...]:
        """(name, sentence) of everything that explains a departure, in the order in which things depart."""
        found = [self.inputs.cause] if self.inputs.departs else []
        found += [(cause.name, cause.says) for cause in self.causes]
        found += [self.labels.cause] if self.labels.departs else []
        return tuple(cause for cause in found if cause is not None)


def verify(
    weights: Weights,
    recording: Recording,
    *,
    device: str = "cpu",
    precision: str = "float32",
    threads: int | None = None,
    is_training: bool = False,
    progress: Callable[[str, int, int], None] = lambda what, done, total: None,
) -> Verification:
    """Run a network on the arrays that slim saw, and compare every end point with what slim gave.

    Its numbers are compared with slim's and both with the float64 definition (see `accuracy`). The image files are
    preprocessed anew and compared with the arrays. Where something departs, hypotheses are run to find out why. Memory
    beyond the weights and the recording: a few end points. ShapeError where the recorded inputs do not fit the network.
    """
    seconds: dict[str, float] = {}
    started = time.perf_counter()
    inputs = check_inputs(recording, weights.preprocessing)
    seconds["preprocessing"] = time.perf_counter() - started
    setup = Setup(weights.network, weights, recording.inputs(), is_training)
    comparison = compare(setup, recording, device, precision, threads)
    seconds.update(comparison.seconds)
    start = time.perf_counter()
    wrong = differing(setup, recording)
    causes: tuple[Cause, ...] = ()
    if comparison.first is not None:
        first = comparison.rows[comparison.first].name
        listed = chain(
            exchanged(setup, recording, wrong),
            hypotheses(setup, recording.network, weights.preprocessing),
            damaged(setup, recording, wrong, first),
        )
        causes = diagnose(
            setup,
            comparison,
            listed,
            lambda changed: compare(changed, recording, device, "float32", threads, stop=True),
            lambda done, total: progress("diagnosing", done, total),
        )
    seconds["diagnosis"] = time.perf_counter() - start
    seconds["whole"] = time.perf_counter() - started
    return Verification(
        weights.path,
        recording.path,
        recording.facts,
        weights.network.scope,
        device,
        precision,
        inputs,
        check_labels(weights, recording.facts),
        comparison,
        causes,
        tuple(wrong),
        seconds,
    )


def check_labels(weights: Weights, facts: Facts) -> Labels:
    """Compare the names of the classes, and where they differ see whether they are off by one."""
    if weights.labels is None or facts.labels is None:
        return Labels(False, says="one side has no labels")
    ours, slims = tuple(weights.labels), tuple(facts.labels)
    if ours == slims:
        return Labels(True, says=f"{len(ours)} equal")
    count = min(len(ours), len(slims))
    at = next((i for i in range(count) if ours[i] != slims[i]), count)
    shown = [repr(names[at]) if at < len(names) else "nothing" for names in (ours, slims)]
    says = f"class {at} is {shown[0]} here, {shown[1]} for slim"
    for by in (1, -1):
        # Class i of ours is class i + by of slim's, wherever both exist.
        pairs = [(ours[i], slims[i + by]) for i in range(len(ours)) if 0 <= i + by < len(slims)]
        if len(pairs) >= count - 1 and pairs and all(a == b for a, b in pairs):
            found = f"class i here is slim's class i {'+' if by > 0 else '-'} 1: one of the two counts a background"
            return Labels(True, True, says, ("labels off by one", found))
    return Labels(True, True, says)
