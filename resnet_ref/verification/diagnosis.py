"""Finds out why a network departs from slim, by running each hypothesis and seeing whether slim's numbers come back."""

import math
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, replace

import numpy as np

from resnet_ref.errors import ResnetRefError
from resnet_ref.verification.comparison import Comparison
from resnet_ref.verification.hypotheses import Hypothesis
from resnet_ref.verification.setup import Setup

_TRIED_TOGETHER = 4  # how many hypotheses that help are tried with all others, where none explains everything
_MUCH = 4


@dataclass(frozen=True)
class Cause:
    """What was found, by test: with it, every end point agrees with slim again.

    kind, name, says: of the hypothesis, or of several joined by " and ". share: of the largest bound that is then used.
    alike: other values of the same thing that cannot be told from it here.
    """

    kind: str
    name: str
    says: str
    share: float
    alike: tuple[str, ...] = ()


@dataclass(frozen=True)
class _Trial:
    """A hypothesis and how it fared: up to which row it agrees, and how closely."""

    hypothesis: Hypothesis
    reached: int
    comparison: Comparison

    @property
    def explains(self) -> bool:
        return self.comparison.first is None

    @property
    def share(self) -> float:
        return float(np.median([row.shares["slim agrees"] for row in self.comparison.rows if row.shares]))


Tick = Callable[[int, int], None]


def diagnose(
    setup: Setup,
    found: Comparison,
    hypotheses: Iterable[Hypothesis],
    run: Callable[[Setup], Comparison],
    tick: Tick = lambda done, total: None,
) -> tuple[Cause, ...]:
    """The hypotheses under which all end points agree, the likeliest first; none where nothing departs.

    run: how a setup is compared, ending at the first departure. Where no single hypothesis explains everything, those
    that reach furthest are tried together with each of the others. tick: called with trials done and expected.
    """
    if found.first is None:
        return ()
    listed = list(hypotheses)
    trials = _tried(setup, listed, run, tick)
    explaining = [trial for trial in trials if trial.explains]
    if not explaining:
        for helper in _helping(trials, found):
            own = helper.hypothesis
            others = [h for h in listed if h is not own and (h.kind != own.kind or h.kind == "transposed")]
            together = [_joined(own, other) for other in others]
            explaining += [trial for trial in _tried(setup, together, run, tick) if trial.explains]
            if explaining:
                break
    return _causes(explaining)


def _helping(trials: Sequence[_Trial], found: Comparison) -> list[_Trial]:
    """Those under which more end points agree, or the first that departs does so much less; the best first."""

    first = found.first or 0

    def error(comparison: Comparison) -> float:
        """At the first departure of all; infinite where shapes differ, or it was not reached."""
        row = comparison.rows[first] if first < len(comparison.rows) else None
        return math.inf if row is None or row.measures is None else row.measures.e_near

    helpful = [t for t in trials if t.reached > first or error(t.comparison) < error(found) / _MUCH]
    return sorted(helpful, key=lambda t: (-t.reached, error(t.comparison)))[:_TRIED_TOGETHER]


def _tried(
    setup: Setup, hypotheses: Sequence[Hypothesis], run: Callable[[Setup], Comparison], tick: Tick
) -> list[_Trial]:
    trials = []
    for number, hypothesis in enumerate(hypotheses):
        tick(number, len(hypotheses))
        try:
            comparison = run(hypothesis.change(setup))
        except ResnetRefError:  # the changed network does not fit its variables or inputs: so it is not slim's
            continue
        reached = len(comparison.rows) if comparison.first is None else comparison.first
        trials.append(_Trial(hypothesis, reached, comparison))
    tick(len(hypotheses), len(hypotheses))
    return trials


def _joined(first: Hypothesis, second: Hypothesis) -> Hypothesis:
    return Hypothesis(
        f"{first.kind} and {second.kind}",
        f"{first.name} and {second.name}",
        f"{first.says}; {second.says}",
        lambda setup: second.change(first.change(setup)),
    )


def _causes(trials: Sequence[_Trial]) -> tuple[Cause, ...]:
    """One cause per kind, in the hypotheses' order of likelihood; those of a kind that fit as well become `alike`."""
    causes: dict[str, Cause] = {}
    for trial in trials:
        h = trial.hypothesis
        known = causes.get(h.kind)
        if known is None:
            causes[h.kind] = Cause(h.kind, h.name, h.says, trial.share)
        elif h.name != known.name and h.name not in known.alike:
            causes[h.kind] = replace(known, alike=(*known.alike, h.name))
    return tuple(causes.values())
