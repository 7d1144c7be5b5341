"""Which algorithm computes a convolution: by a small model of what each costs.

    seconds = products / RATE + weights / WEIGHTS_RATE + transforms' bytes / TRANSFORM_RATE + waits

The rates were measured once, on two cores of a CPU with AVX-512 (see benchmarks/plan_costs.py). Only their proportions
matter, and for a choice that changes rounding the number of threads does not enter, so that results do not depend on it.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import partial

from resnet_ref.errors import DeviceError
from resnet_ref.kernels.conv2d.planned import Convolution, can_winograd, direct, tile_count, winograd
from resnet_ref.kernels.conv2d.winograd_matrices import TAPS
from resnet_ref.kernels.vector.emit import FLOAT
from resnet_ref.kernels.vector.step import Step, Target

RATE = 220e9  # FLOP/s of the register tile
WEIGHTS_RATE = 25e9  # bytes/s of weights that no cache holds
TRANSFORM_RATE = 130e9  # bytes/s that Winograd's transforms read and write
WAIT = 3e-6  # seconds that a step more costs
FULL_TILE = 7  # rows from which a tile's arithmetic hides the latency of its additions
FUSED_TILES = 28  # Winograd tiles of a task that does all stages for them
LEAST_FUSED = 20  # tiles for each thread below which weights, read by each thread, cost more than waiting

# Winograd's output sizes that each algorithm may use. F(2x2) is as exact as the definition. F(4x4) at the points of
# winograd_matrices.py errs 2 to 3 times as much, which on some networks is more than the accuracy rule allows.
SIZES = {"auto": (2,), "direct": (), "fast": (2, 4), "tuned": (2,)}
Method = Callable[[Target, Convolution], Sequence[Step]]


@dataclass(frozen=True)
class Candidate:
    """A way to compute a convolution, and what the model says it costs, in seconds."""

    name: str
    seconds: float
    method: Method

    def __call__(self, target: Target, conv: Convolution) -> Sequence[Step]:
        """The steps."""
        return self.method(target, conv)


def check_algorithm(algorithm: str) -> str:
    """The algorithm itself; DeviceError where there is none of this name."""
    if not isinstance(algorithm, str) or algorithm not in SIZES:
        raise DeviceError(f"algorithm must be one of {', '.join(SIZES)}; got {algorithm!r}")
    return algorithm


def candidates(conv: Convolution, algorithm: str, threads: int) -> list[Candidate]:
    """The ways that `algorithm` allows, the one that the model thinks cheapest first.

    threads: decides between fused and staged alone.
    """
    weights = FLOAT * conv.rows.size * conv.cols.size * conv.x.c * conv.y.c
    found = [Candidate("direct", conv.flops / RATE + weights / WEIGHTS_RATE, direct)]
    if can_winograd(conv):
        found += [candidate for m in SIZES[algorithm] for candidate in _winograd(conv, m, threads)]
    return sorted(found, key=lambda candidate: candidate.seconds)


def _winograd(conv: Convolution, m: int, threads: int) -> list[Candidate]:
    """Fused and staged: the same sums in another order of work, so their results are equal."""
    groups, tiles = (m + TAPS - 1) ** 2, tile_count(conv, m)
    weights = groups * conv.x.c * conv.y.c * FLOAT
    flops = 2 * groups * max(tiles, FULL_TILE) * conv.x.c * conv.y.c
    transforms = 2 * groups * tiles * (conv.x.c + conv.y.c) * FLOAT
    seconds = flops / RATE + weights / WEIGHTS_RATE + transforms / TRANSFORM_RATE
    ways = {"fused": FUSED_TILES, "staged": None}
    if tiles < LEAST_FUSED * threads:
        ways = dict(reversed(ways.items()))
    return [
        Candidate(f"F({m}x{m}) {way}", seconds + number * WAIT, partial(winograd, m=m, fused_tiles=most))
        for number, (way, most) in enumerate(ways.items())
    ]


def cheapest(algorithm: str) -> Method:
    """Chooses by the model alone."""
    return lambda target, conv: candidates(conv, algorithm, target.threads)[0](target, conv)
