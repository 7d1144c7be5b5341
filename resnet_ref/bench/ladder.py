"""Every rung of the ladder (kernels/conv2d/ladder) on every convolution of a network, each as large as it is there.

Convolutions that are alike are timed once and count as often as they occur. A convolution is timed alone, and again and
again: what it reads lies in the caches, where they hold it, which within a network it may not.
"""

import math
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from typing import Any

import numpy as np

from resnet_ref import kernels
from resnet_ref.bench.comparison import Times
from resnet_ref.bench.contenders import CPU
from resnet_ref.bench.fused_layers import fused_layers
from resnet_ref.bench.peaks import Peak, gpu_runtime, peak
from resnet_ref.errors import BenchError, VerificationError
from resnet_ref.kernels.arrays import Array
from resnet_ref.kernels.conv2d.gpu import has_precision
from resnet_ref.kernels.conv2d.ladder.problem import Prepared, Problem
from resnet_ref.kernels.conv2d.ladder.rungs import GPU, Rung, ladder
from resnet_ref.kernels.cuda.runtime import Runtime
from resnet_ref.kernels.geometry import Window
from resnet_ref.network import Network
from resnet_ref.plan.fusing import Fused

# Of the largest output. 4608 float32 products, added one after the other, err by 2e-6; a wrong pad by far more.
ALLOWED = 1e-5
_TURN = 0.02  # seconds that a turn's runs should last together
_FEWEST, _MOST = 2, 50  # runs of a turn


@dataclass(frozen=True)
class Kind:
    """Convolutions that cost the same. first: the scope of the first. count: how many there are."""

    first: str
    count: int
    x: tuple[int, ...]
    w: tuple[int, ...]
    rows: Window
    cols: Window
    residual: tuple[int, ...] | None
    residual_stride: int
    activation: str | None

    @property
    def flops(self) -> int:
        """Of all of them, a multiply-add counted as two."""
        pixels = self.x[0] * self.rows.out(self.x[1]) * self.cols.out(self.x[2])
        return 2 * self.count * pixels * math.prod(self.w)

    @property
    def text(self) -> str:
        """As tables show it."""
        size = f"{self.rows.size}x{self.cols.size}"
        stride = f"/{self.rows.stride}" if self.rows.stride > 1 else ""
        rate = f" rate {self.rows.rate}" if self.rows.rate > 1 else ""
        add = " + residual" if self.residual else ""
        return f"{size}{stride}{rate}, {self.x[1]}x{self.x[2]}x{self.x[3]} to {self.w[3]}{add}"

    def problem(self, seed: int) -> Problem:
        """With random numbers, none of which is special, and outputs about as large as they."""
        rng = np.random.default_rng(seed)

        def normal(*shape: int) -> Array:
            return rng.standard_normal(shape, np.float32)

        w = normal(*self.w) / np.float32(math.sqrt(math.prod(self.w[:3])))
        residual = None if self.residual is None else normal(*self.residual)
        epilogue = (normal(self.w[3]), residual, self.residual_stride, self.activation)
        return Problem(normal(*self.x), w, self.rows, self.cols, *epilogue)


@dataclass(frozen=True)
class Row:
    """One kind. flops: of one of its convolutions, as the definition has them. times: by the rung's name; their errors
    are against float64, of the largest output."""

    kind: Kind
    flops: int
    times: Mapping[str, Times]


@dataclass(frozen=True)
class Climb:
    """What was measured. peak: the most that the device did, asked for before each kind. of: how many convolutions the
    network has, of which `rows` may hold some alone."""

    network: Network
    shape: tuple[int, ...]
    device: str
    threads: int
    rounds: int
    peak: Peak
    rungs: Sequence[Rung]
    rows: Sequence[Row]
    of: int

    def seconds(self, rung: str) -> float:
        """Of the convolutions, one after the other."""
        return sum(row.kind.count * row.times[rung].median for row in self.rows)

    @property
    def flops(self) -> int:
        """Of the convolutions."""
        return sum(row.kind.count * row.flops for row in self.rows)

    @property
    def count(self) -> int:
        """How many convolutions were measured."""
        return sum(row.kind.count for row in self.rows)


def kinds(network: Network, shape: Sequence[int]) -> list[Kind]:
    """The convolutions of a network for images [N, H, W, C], fused as a plan has them; BenchError where it has none."""
    found: dict[tuple[object, ...], list[str]] = {}
    for one in fused_layers(network, shape):
        rows, cols = one.layer.rows, one.layer.cols
        if one.layer.op == "conv2d" and rows is not None and cols is not None:
            found.setdefault(_like(one, rows, cols), []).append(one.layer.name)
    if not found:
        raise BenchError("the network has no convolutions")
    return [Kind(names[0], len(names), *like) for like, names in found.items()]  # type: ignore[arg-type]


def _like(one: Fused, rows: Window, cols: Window) -> tuple[object, ...]:
    x, y = one.layer.inputs[0].shape, one.output.shape
    x, y = (shape if len(shape) == 4 else (shape[0], 1, 1, shape[1]) for shape in (x, y))
    residual = None if one.residual is None else one.residual.shape
    return x, (rows.size, cols.size, x[3], y[3]), rows, cols, residual, one.residual_stride, one.activation


def climb(
    network: Network, shape: tuple[int, ...], device: str, threads: int, rounds: int, progress: Callable[[], None]
) -> Climb:
    """Check every rung on every kind, then time it. VerificationError where one computes something else, and then
    nothing more is timed. progress: called for each kind."""
    found = []
    for so_far in climbing(network, shape, device, threads, rounds, kinds(network, shape)):
        found.append(so_far)
        progress()
    return found[-1]


def climbing(
    network: Network, shape: tuple[int, ...], device: str, threads: int, rounds: int, some: Sequence[Kind]
) -> Iterator[Climb]:
    """As `climb`, of some kinds: what was measured so far, after each."""
    runtime = None if device == CPU else gpu_runtime(device)
    rungs, count = _rungs(runtime), sum(kind.count for kind in kinds(network, shape))
    rows: list[Row] = []
    peaks = []
    for number, kind in enumerate(some):
        peaks.append(peak(device, threads))
        problem = kind.problem(number)
        rows.append(Row(kind, problem.flops, _timed(rungs, kind, problem, runtime or threads, rounds)))
        best = max(peaks, key=lambda one: one.gflops)
        yield Climb(network, shape, device, threads, rounds, best, rungs, tuple(rows), count)


def _rungs(runtime: Runtime | None) -> Sequence[Rung]:
    """Those of the device; a gpu without tensor cores has no last one."""
    if runtime is None:
        return ladder(CPU)
    return [rung for rung in ladder(GPU) if has_precision(runtime, rung.precision)]


def _timed(rungs: Sequence[Rung], kind: Kind, problem: Problem, on: int | Runtime, rounds: int) -> dict[str, Times]:
    true = _truth(problem)
    prepared = {rung.name: rung.prepare(problem, on) for rung in rungs}
    errors = {}
    for name, one in prepared.items():
        one.run()
        errors[name] = _error(f"{name} on {kind.first} ({kind.text})", one.result(), true)
    clocks = {name: partial(_seconds, one, on) for name, one in prepared.items()}
    taken: dict[str, list[float]] = {name: [] for name in clocks}
    runs = {name: min(max(math.ceil(_TURN / clock(1)[0]), _FEWEST), _MOST) for name, clock in clocks.items()}
    for number in range(rounds):
        turns = list(clocks.items())
        for name, clock in turns if number % 2 == 0 else reversed(turns):
            # One more, which finds the caches full of another rung's numbers.
            taken[name] += clock(runs[name] + 1)[1:]
    return {name: Times(taken[name], errors[name]) for name in clocks}


def _truth(problem: Problem) -> Array:
    """The definition in float64."""
    doubles: dict[str, Any] = {
        name: value.astype(np.float64) if isinstance(value, np.ndarray) else value
        for name, value in problem._asdict().items()
    }
    return kernels.on("definition").conv2d(**doubles)


def _error(what: str, y: Array, true: Array) -> float:
    largest = float(np.abs(true).max())
    error = float(np.abs(y - true).max()) / largest if y.shape == true.shape and largest else math.nan
    if not error <= ALLOWED:
        raise VerificationError(
            f"{what} is wrong: the largest error is {error:.2g} of the largest output, allowed is {ALLOWED:g}; "
            "nothing more is timed"
        )
    return error


def _seconds(prepared: Prepared, on: int | Runtime, runs: int) -> list[float]:
    if not isinstance(on, int):
        return on.seconds(prepared.run, runs)
    taken = []
    for _ in range(runs):
        start = time.perf_counter()
        prepared.run()
        taken.append(time.perf_counter() - start)
    return taken
