"""verify: a weights file against a recording of slim, end point by end point, with the reason where they depart."""

import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from itertools import chain
from pathlib import Path

from resnet_ref import kernels
from resnet_ref.facts import Facts
from resnet_ref.network import Network
from resnet_ref.recording import Recording
from resnet_ref.verification.comparison import Comparison, compare, scope_of
from resnet_ref.verification.diagnosis import Cause, diagnose
from resnet_ref.verification.hypotheses import differences_of_call, hypotheses
from resnet_ref.verification.images import Inputs, check_inputs
from resnet_ref.verification.labels import Labels, check_labels
from resnet_ref.verification.setup import Setup
from resnet_ref.verification.weights import damaged, damaged_in_sample, differing, exchanged
from resnet_ref.weights_file import Weights


@dataclass(frozen=True)
class Verification:
    """What `verify` found.

    device, precision: of the run. inputs, labels: how these compare. comparison: the end points. causes: why they
    depart, likeliest first. notes: what differs although everything agrees. seconds: of each part.
    """

    weights: Path
    recording: Path
    facts: Facts
    network: Network
    device: str
    precision: str
    inputs: Inputs
    labels: Labels
    comparison: Comparison
    causes: tuple[Cause, ...] = ()
    notes: tuple[str, ...] = ()
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
    seconds.update({what: part for what, part in comparison.seconds.items() if what != "whole"})
    start = time.perf_counter()
    wrong = differing(setup, recording)

    ran_in = "float32" if precision == "float64" else precision

    def run(changed: Setup) -> Comparison:
        return compare(changed, recording, device, ran_in, threads, stop=True)

    causes: tuple[Cause, ...] = ()
    notes: tuple[str, ...] = ()
    if comparison.first is None:
        notes = _notes(setup, recording, comparison, wrong, run)
    else:
        listed = chain(
            exchanged(setup, recording, wrong),
            hypotheses(setup, recording.network, weights.preprocessing),
            damaged(setup, recording, wrong, comparison.rows[comparison.first].name),
        )
        causes = diagnose(setup, comparison, listed, run, lambda done, total: progress("diagnosing", done, total))
        if not causes and recording.facts.sample is not None and (seen := damaged_in_sample(wrong, comparison)):
            causes = (seen,)
    seconds["diagnosis"] = time.perf_counter() - start
    seconds["whole"] = time.perf_counter() - started
    return Verification(
        weights=weights.path,
        recording=recording.path,
        facts=recording.facts,
        network=weights.network,
        device=kernels.on(device).device if precision != "float64" else "definition",
        precision=precision,
        inputs=inputs,
        labels=check_labels(weights, recording.facts),
        comparison=comparison,
        causes=causes,
        notes=notes,
        seconds=seconds,
    )


def _notes(
    setup: Setup, recording: Recording, found: Comparison, wrong: Mapping[str, str], run: Callable[[Setup], Comparison]
) -> tuple[str, ...]:
    """What differs although every end point agrees."""
    notes = []
    if found.unrecorded:
        notes.append(f"not in the recording, so not compared: {', '.join(found.unrecorded)}")
    if wrong:
        notes.append(f"{len(wrong)} variables are not bit for bit slim's, {next(iter(wrong))} among them")
    if (scope := scope_of(recording.end_points)) != setup.network.scope:
        notes.append(f"slim's scope is {scope}, here it is {setup.network.scope}; compared by what follows it")
    for hypothesis in differences_of_call(setup.network, recording.network):
        if run(hypothesis.change(setup)).first is None:
            notes.append(f"{hypothesis.says}: indistinguishable here, every end point agrees with either")
    return tuple(notes)
