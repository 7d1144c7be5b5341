"""Which algorithm computes a convolution: by a small model of what each costs.

    seconds = products / RATE + weights / WEIGHTS_RATE + transforms' bytes / TRANSFORM_RATE + waits

The rates are those of a profile on two cores of a CPU with AVX-512 (benchmarks/results/profile_resnet_v1_50.json). Only
their proportions matter, and for a choice that changes rounding the number of threads does not enter, so that results
do not depend on it.
"""

from dataclasses import dataclass
from functools import partial

from resnet_ref.errors import DeviceError
from resnet_ref.kernels.conv2d.bf16 import PRODUCTS
from resnet_ref.kernels.conv2d.bf16_planned import bf16
from resnet_ref.kernels.conv2d.convolution import Convolution, Method
from resnet_ref.kernels.conv2d.direct_planned import can_take_dense, direct
from resnet_ref.kernels.conv2d.winograd_matrices import TAPS
from resnet_ref.kernels.conv2d.winograd_planned import can_winograd, tile_count, winograd
from resnet_ref.kernels.conv2d.winograd_planned import name as winograd_name
from resnet_ref.kernels.conv2d.winograd_planned import takes as winograd_takes
from resnet_ref.kernels.geometry import Window
from resnet_ref.kernels.vector.emit import FLOAT
from resnet_ref.kernels.vector.isa import AMX, Isa, has_amx, isa_named
from resnet_ref.kernels.vector.matrix import require_permission

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
BF16 = tuple(PRODUCTS)


@dataclass(frozen=True)
class Candidate:
    """A way to compute a convolution, and what the model says it costs, in seconds."""

    name: str
    seconds: float
    method: Method


@dataclass(frozen=True)
class Way:
    """How a user wants convolutions computed. algorithm: one of SIZES. bf16: None, or one of BF16; then nothing else is
    chosen. DeviceError for another."""

    algorithm: str = "auto"
    bf16: str | None = None

    def __post_init__(self) -> None:
        if not isinstance(self.algorithm, str) or self.algorithm not in SIZES:
            raise DeviceError(f"algorithm must be one of {', '.join(SIZES)}; got {self.algorithm!r}")
        if self.bf16 is not None and self.algorithm != "auto":
            raise DeviceError(f"precision {self.bf16!r} has one algorithm; leave out algorithm={self.algorithm!r}")


def instruction_set(way: Way, name: str | None) -> Isa:
    """The instruction set to emit for: the named one, or the fastest here; DeviceError where it is not here."""
    if way.bf16 is None:
        return isa_named(name)
    if name is not None:
        raise DeviceError(f"precision {way.bf16!r} needs AMX whatever isa says; leave out isa={name!r}")
    if not has_amx():
        raise DeviceError(
            f'precision {way.bf16!r} needs a CPU with AMX (amx-tile, amx-bf16), this one has none; use "float32"'
        )
    require_permission()
    return AMX


def reads_dense(rows: Window, cols: Window, channels: int, lanes: int) -> bool:
    """Whether pixels may lie side by side, whichever way is chosen."""
    return can_take_dense(cols, channels, lanes) and not winograd_takes(rows, cols)


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
    ways: list[int | None] = [FUSED_TILES, None]
    if tiles < LEAST_FUSED * threads:
        ways.reverse()
    return [
        Candidate(winograd_name(m, most), seconds + number * WAIT, partial(winograd, m=m, fused_tiles=most))
        for number, most in enumerate(ways)
    ]


def by_model(way: Way) -> Method:
    """Chooses by the model alone."""
    precision = way.bf16
    if precision is not None:
        return lambda target, conv: bf16(target, conv, precision)
    return lambda target, conv: candidates(conv, way.algorithm, target.threads)[0].method(target, conv)
