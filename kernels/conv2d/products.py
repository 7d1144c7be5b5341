"""How a matrix product is cut up for multiply.py: panels of weights, tiles of pixels, blocks of both for the tasks."""

import numpy as np

from resnet_ref.kernels.arrays import Array
from resnet_ref.kernels.vector import sharing
from resnet_ref.kernels.vector.emit import FLOAT
from resnet_ref.kernels.vector.memory import floats
from resnet_ref.kernels.vector.objects import Library
from resnet_ref.kernels.vector.step import TASKS, Map, Memory, Target
from resnet_ref.kernels.vector.tile import LONGEST_SUM, tile_name

SMALL_WEIGHTS = 600_000  # bytes that may stay in a core's cache while x streams by
BLOCK_BYTES = 1_000_000  # of x, that a core holds while panels of weights go by


def pack(w: Array, library: Library) -> Array:
    """[groups, K, F] -> for each group panels [K, panel], the last as narrow as whole vectors allow, zeros beyond F."""
    groups, depth, features = w.shape
    lanes, panel = library.isa.lanes, library.isa.panel
    pitch = -(-features // lanes) * lanes
    packed = floats(groups, depth * pitch)
    for left in range(0, pitch, panel):
        width = min(panel, pitch - left)
        right = min(left + width, features)
        place = packed[:, depth * left : depth * (left + width)].reshape(groups, depth, width)
        place[:, :, : right - left] = w[:, :, left:right]
    return packed


def product(target: Target, pixels: int, depth: int, channels: int, *, in_one: bool = False) -> dict[str, int]:
    """Tiles, panels, the functions that compute them, and blocks of both; in_one: all of it is one block."""
    isa, library = target.library.isa, target.library
    tiles, heights = sharing.shares(pixels, isa.rows)
    panels = -(-channels // isa.panel)
    short, tall = heights["height"], sharing.tallest(heights)
    full, last = isa.vectors, -(-(channels - (panels - 1) * isa.panel) // isa.lanes)
    whole = {"block_tiles": tiles, "block_panels": panels, "by_panel": 1}
    return {
        "tiles": tiles,
        **heights,
        "panels": panels,
        "w_panel": depth * isa.panel * FLOAT,
        "full_tall": library[tile_name(tall, full)],
        "full_short": library[tile_name(short, full)],
        "last_tall": library[tile_name(tall, last)],
        "last_short": library[tile_name(short, last)],
        **(whole if in_one else _blocks(target, tiles, panels, depth, depth * channels * FLOAT)),
    }


def _blocks(target: Target, tiles: int, panels: int, depth: int, weights: int) -> dict[str, int]:
    """How a product is cut into tasks, and in which order each is gone through (see multiply.py). weights: bytes."""
    threads, rows = target.threads, target.library.isa.rows
    if tiles < 4 * threads:  # too few tiles to share out: share the panels
        return {"block_tiles": tiles, "block_panels": -(-panels // (TASKS * threads)), "by_panel": 1}
    if weights <= SMALL_WEIGHTS:
        return {"block_tiles": -(-tiles // (2 * TASKS * threads)), "block_panels": panels, "by_panel": 0}
    held = max(4, BLOCK_BYTES // (depth * FLOAT * rows))
    blocks = threads * -(-tiles // (threads * held))
    return {
        "block_tiles": -(-tiles // blocks),
        "block_panels": -(-panels // -(-2 * TASKS // blocks)),
        "by_panel": 1,
    }


def task_count(cut: dict[str, int]) -> int:
    """Into how many tasks the blocks of a `product` cut it."""
    return -(-cut["tiles"] // cut["block_tiles"]) * -(-cut["panels"] // cut["block_panels"])


def equal_parts(channels: int) -> int:
    """Into how many equal parts a tap is cut so that none is longer than LONGEST_SUM; 1 where none are equal."""
    least = -(-channels // LONGEST_SUM)
    return next((pieces for pieces in range(least, 2 * least + 1) if channels % pieces == 0), 1)


def row_by_row(memory: Memory, x: Map, tallest: int) -> dict[str, int]:
    """The table of a product whose rows are x's pixels, one after the other: one for all tiles."""
    taps = equal_parts(x.c)
    depth = x.c // taps
    table = memory.table(depth * np.arange(taps)[:, None] + x.pitch * np.arange(tallest))
    return {
        "taps": taps,
        "depth": depth,
        "x_step": x.step,
        "table": table,
        "table_tile": 0,
        "tap_step": tallest * 4,
    }
