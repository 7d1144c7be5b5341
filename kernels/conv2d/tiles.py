"""How a gpu's convolution is cut into blocks: the tiles there are, and a small model of which is fastest for a shape.

    seconds ~ the busiest multiprocessor's blocks x their products, over what it does at once
            + what a split of k costs in writing its sums and reading them again

No figure here was timed on a device. Registers and instructions are those that the compiler reports, the rest is
arithmetic, and only proportions matter: `plan/gpu` times the best few where it is asked to.
"""

from functools import cache
from math import ceil
from typing import NamedTuple

from resnet_ref.kernels.cuda.launch import ADDRESSABLE

FLOAT32, TF32X3, TF32, BFLOAT16 = "float32", "tf32x3", "tf32", "bfloat16"
MULTIPLIERS = 128  # of float32 in a multiprocessor
WARPS_TO_HIDE = 8  # that a multiprocessor needs to work without waiting for memory
LATENCY_SHARE = 0.9  # of the time, that it waits with hardly any
LAUNCH = 2e-6  # seconds
COPY_RATE = 2.5e12  # bytes/s at which sums of a split are written and read
CLOCK = 1.7e9  # Hz
LEAST_DEPTH = 64  # of k that a split is worth
SPLITS = (1, 2, 3, 4, 6, 8, 12, 16)


class Tile(NamedTuple):
    """A block computes bm x bn outputs in steps of bk, a thread tm x tn of them (on tensor cores a warp).

    blocks: that fit on a multiprocessor. share: of its multipliers' time that goes into products, not into loads and
    addresses. speed: of the multipliers, in float32's.
    """

    bm: int
    bn: int
    bk: int
    tm: int
    tn: int
    threads: int
    blocks: int
    share: float
    speed: float = 1.0

    @property
    def name(self) -> str:
        """As tables show it."""
        return f"{self.bm}x{self.bn}"


# Blocks: by the registers that NVRTC reports for sm_90. Shares: of multiply-adds among the instructions of the loop; on
# tensor cores a warp's products, 512 a cycle, beside its reads of 32 words a cycle, as if these never went on at once.
# Speeds on tensor cores: of the data sheet of an A100.
TILES = {
    FLOAT32: (
        Tile(128, 128, 8, 8, 8, 256, 2, 0.80),
        Tile(128, 64, 8, 8, 8, 128, 3, 0.78),
        Tile(64, 64, 8, 8, 4, 128, 4, 0.68),
        Tile(32, 64, 16, 4, 4, 128, 5, 0.64),
    ),
    TF32X3: (
        Tile(128, 128, 8, 64, 32, 256, 2, 0.67, 8 / 3),
        Tile(128, 64, 8, 64, 32, 128, 2, 0.67, 8 / 3),
        Tile(64, 64, 8, 32, 32, 128, 4, 0.60, 8 / 3),
    ),
    TF32: (
        Tile(128, 128, 16, 64, 32, 256, 2, 0.57, 8.0),
        Tile(128, 64, 16, 64, 32, 128, 3, 0.57, 8.0),
        Tile(64, 64, 16, 32, 32, 128, 4, 0.50, 8.0),
    ),
    BFLOAT16: (
        Tile(128, 128, 16, 64, 32, 256, 2, 0.57, 16.0),
        Tile(128, 64, 16, 64, 32, 128, 3, 0.57, 16.0),
        Tile(64, 64, 32, 32, 32, 128, 4, 0.50, 16.0),
    ),
}
PRECISIONS = tuple(TILES)


class Way(NamedTuple):
    """How a convolution is computed: in a precision, by a tile, k in so many splits."""

    precision: str
    tile: Tile
    splits: int

    @property
    def name(self) -> str:
        """As tables show it and choices are remembered: "float32 128x64 split 4"."""
        return f"{self.precision} {self.tile.name}" + (f" split {self.splits}" if self.splits > 1 else "")


@cache
def candidates(m: int, n: int, k: int, multiprocessors: int, precision: str = FLOAT32) -> tuple[Way, ...]:
    """The ways to multiply [m, k] by [k, n], the one that the model thinks fastest first."""
    ways = [
        Way(precision, tile, splits)
        for tile in TILES[precision]
        for splits in SPLITS
        if splits == 1 or (k >= splits * max(LEAST_DEPTH, tile.bk) and splits * m * n <= ADDRESSABLE)
    ]
    return tuple(sorted(ways, key=lambda way: seconds(way, m, n, k, multiprocessors)))


def by_name(precision: str, name: str) -> Way | None:
    """The way of that name, or None."""
    ways = (Way(precision, tile, splits) for tile in TILES.get(precision, ()) for splits in SPLITS)
    return next((way for way in ways if way.name == name), None)


def k_per_split(way: Way, k: int) -> int:
    """How much of k each split sums: whole steps."""
    return ceil(ceil(k / way.tile.bk) / way.splits) * way.tile.bk


def seconds(way: Way, m: int, n: int, k: int, multiprocessors: int) -> float:
    """What the model says."""
    tile = way.tile
    blocks = ceil(m / tile.bm) * ceil(n / tile.bn) * way.splits
    busiest = ceil(blocks / multiprocessors)
    products = tile.bm * tile.bn * k_per_split(way, k) / (MULTIPLIERS * tile.speed * tile.share)
    warps = min(busiest, tile.blocks) * tile.threads / 32
    hidden = min(1.0, warps / WARPS_TO_HIDE * LATENCY_SHARE + 1 - LATENCY_SHARE)
    split = 0.0 if way.splits == 1 else LAUNCH + (way.splits + 1) * m * n * 4 / COPY_RATE
    return busiest * products / hidden / CLOCK + LAUNCH + split
