"""Runs a network beside the float64 truth and compares each end point with slim's as it is made; keeps none of them."""

import re
import time
from collections.abc import Iterable
from dataclasses import dataclass, field
from typing import Any

import numpy as np
from numpy.typing import NDArray

from resnet_ref import kernels
from resnet_ref.accuracy import Rule, error
from resnet_ref.delegating import Pair, Paired
from resnet_ref.recording import Recorded, Recording
from resnet_ref.verification.measures import Measures, measure
from resnet_ref.verification.setup import Setup

Array = NDArray[Any]
REACH = 3  # pixels shown to each side of the worst one


@dataclass(frozen=True)
class Row:
    """One end point: how it compares, how much of each of `accuracy.Rule`'s bounds it uses, or why it cannot be."""

    name: str
    measures: Measures | None = None
    shares: dict[str, float] = field(default_factory=dict)
    problem: str | None = None

    @property
    def share(self) -> float:
        """The largest share of a bound; above 1 the end point departs."""
        return float("inf") if self.problem else max(self.shares.values(), default=0.0)

    @property
    def departs(self) -> bool:
        """Whether it lies beyond what is allowed."""
        return not self.share <= 1


@dataclass(frozen=True)
class Closeup:
    """One end point around its worst value: patches [rows, cols] of one image and channel, and all its values counted.

    at: the worst value's position; top, left: the patch's corner. slim: None where the recording is sampled. edges,
    counts: histograms of ours' and slim's values.
    """

    name: str
    at: tuple[int, ...]
    top: int
    left: int
    ours: Array
    slim: Array | None
    truth: Array
    edges: Array
    counts: dict[str, Array]


@dataclass
class Comparison:
    """A network's end points against a recording.

    rows: in slim's order. first: the number of the first that departs, or None. unrecorded: our end points that the
    recording lacks. closeup: of the first that departs, else of the one that is nearest to it. seconds: by part.
    """

    rows: list[Row] = field(default_factory=list)
    first: int | None = None
    unrecorded: list[str] = field(default_factory=list)
    closeup: Closeup | None = None
    seconds: dict[str, float] = field(default_factory=dict)

    @property
    def worst(self) -> Row:
        """The row that uses the most of its bounds."""
        return max(self.rows, key=lambda row: row.share)


def compare(
    setup: Setup, recording: Recording, device: str, precision: str, threads: int | None = None, *, stop: bool = False
) -> Comparison:
    """Run `setup` on a device, and in float64 on the definition, and compare both with the recording.

    stop: end at the first end point that departs. Memory beyond the recording: a few end points.
    """
    setup.check()
    sink = _Sink(recording, setup.network.scope, precision, stop)
    start = time.perf_counter()
    paired = Paired(*_interpreters(setup, device, precision, threads))
    ours, truth = (setup.inputs.astype(dtype, copy=False) for dtype in (np.float32, np.float64))
    try:
        setup.describe(paired, Pair(ours, truth), sink)
        sink.finish()
    except _Departed:
        pass
    # In float64 the run is the truth, and the float32 beside it serves as the measure.
    first, second = ("float32 beside it", "run") if precision == "float64" else ("run", "float64 truth")
    seconds = {first: paired.seconds[0], second: paired.seconds[1]}
    seconds |= {"reading": sink.reading, "comparing": sink.comparing, "whole": time.perf_counter() - start}
    sink.result.seconds = seconds
    return sink.result


def _interpreters(setup: Setup, device: str, precision: str, threads: int | None) -> tuple[Any, Any]:
    definition = kernels.on("definition")
    tier = definition if precision == "float64" else kernels.on(device, threads, precision=precision)
    return setup.eager(kernels.for_numpy(tier), np.dtype(np.float32)), setup.eager(definition, np.dtype(np.float64))


def scope_of(names: Iterable[str]) -> str:
    """The scope that a network's end points stand in."""
    for name in names:
        if match := re.match(r"(.+?)/(conv1|block\d+(/.*)?|logits)$", name):
            return match[1]
    return ""


def rescoped(name: str, old: str, new: str) -> str:
    """The name with the scope `new` where it stands in `old`; two networks are matched by what follows the scope."""
    return f"{new}/{name[len(old) + 1 :]}" if name.startswith(f"{old}/") else name


class _Departed(Exception):  # noqa: N818  no error: it ends a run early
    """Ends a run that need not go on."""


class _Sink(dict[str, Any]):
    """Takes each end point as it is made, compares it, and lets it go."""

    def __init__(self, recording: Recording, scope: str, precision: str, stop: bool) -> None:
        super().__init__()
        self.recording, self.exact, self.stop = recording, precision == "float64", stop
        self.result = Comparison()
        self.rule = Rule(recording.facts.sample is not None, precision)
        self.reading = self.comparing = 0.0
        self.scopes = scope, scope_of(recording.end_points)
        self.seen: set[str] = set()

    def __setitem__(self, name: str, pair: Pair) -> None:
        recorded_name = rescoped(name, *self.scopes)
        if recorded_name not in self.recording.end_points:
            self.result.unrecorded.append(name)
            return
        start = time.perf_counter()
        recorded = self.recording.read(recorded_name)
        read = time.perf_counter()
        self.seen.add(recorded_name)
        self._add(name, recorded, pair)
        self.reading += read - start
        self.comparing += time.perf_counter() - read

    def finish(self) -> None:
        """Once all are made: those that slim had and we have not."""
        for name in self.recording.end_points:
            if name not in self.seen:
                self._append(Row(name, problem="slim has this end point, the network here has not"), None)

    def _add(self, name: str, recorded: Recorded, pair: Pair) -> None:
        ours, truth = (pair.b, pair.b) if self.exact else pair
        if _without_ones(recorded.shape) != _without_ones(truth.shape):
            said = f"slim's shape is {list(recorded.shape)}, here it is {list(truth.shape)}"
            self._append(Row(name, problem=said), None)
            return
        scale = float(np.abs(truth).max(initial=0))
        parts = (recorded.of(ours), recorded.values, recorded.of(truth))
        measures = measure(name, truth.shape, *parts, recorded.positions, scale)
        e_float32 = error(recorded.of(pair.a), parts[2], scale) if self.exact else measures.e_ours
        shares = self.rule.shares(name, e_float32, measures.e_slim, measures.e_near, scale)
        if self.exact:
            shares["ours is right"] = 0.0  # it is the truth itself
        row = Row(name, measures, shares)
        self._append(row, lambda: _closeup(row, recorded, ours, truth))

    def _append(self, row: Row, closeup: Any) -> None:
        result = self.result
        leads = result.first is None and (not result.rows or row.share > result.worst.share or row.departs)
        result.rows.append(row)
        if row.departs and result.first is None:
            result.first = len(result.rows) - 1
        if leads:
            result.closeup = closeup() if closeup else None
        if row.departs and self.stop:
            raise _Departed


def _without_ones(shape: tuple[int, ...]) -> tuple[int, ...]:
    """The shape less its axes of length one: pip's tf_slim has logits [N, 1, 1, C] where slim has [N, C]."""
    return tuple(n for n in shape if n != 1)


def _closeup(row: Row, recorded: Recorded, ours: Array, truth: Array) -> Closeup | None:
    measures = row.measures
    if measures is None or not measures.compared:
        return None
    at = measures.at if truth.ndim == 4 else (measures.at[0], 0, 0, measures.at[-1])
    maps = [array.reshape(_as_map(truth.shape)) for array in (ours, truth)]
    whole = recorded.values.reshape(_as_map(truth.shape)) if recorded.positions is None else None
    n, y, x, c = at
    top, left = max(0, y - REACH), max(0, x - REACH)
    window = (n, slice(top, y + REACH + 1), slice(left, x + REACH + 1), c)
    values = {"ours": recorded.of(ours), "slim": recorded.values}
    finite = [float(v) for held in values.values() for v in (np.nanmin(held), np.nanmax(held)) if np.isfinite(v)]
    edges = np.linspace(min(finite, default=0.0), max(finite, default=1.0) or 1.0, 41)
    return Closeup(
        row.name,
        at,
        top,
        left,
        maps[0][window].astype(np.float64),
        None if whole is None else whole[window].astype(np.float64),
        maps[1][window].astype(np.float64),
        edges,
        {side: np.histogram(held[np.isfinite(held)], edges)[0] for side, held in values.items()},
    )


def _as_map(shape: tuple[int, ...]) -> tuple[int, ...]:
    return shape if len(shape) == 4 else (shape[0], 1, 1, shape[-1])
