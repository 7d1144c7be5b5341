"""The matrix product that convolutions come down to: which tiles, in which order, by which thread.

y[pixels, channels] is cut into tiles of as equal height as can be (never 14, 14, 14, 7) and into panels of a tile's
width. A task is a block of tiles by a block of panels, and goes through them in one of two orders:

    small weights: tile by tile, all panels of each; x is read once, the weights stay in the cache
    large weights: panel by panel, all tiles of each; the weights are read once, while the next panel is fetched

Several products of one shape may go as one operation, as groups: Winograd's have 16 or 36.
"""

from collections.abc import Iterator
from itertools import product
from types import SimpleNamespace

from resnet_ref.kernels.vector import sharing
from resnet_ref.kernels.vector.emit import FLOAT, I64, LINE, Emitter, Layout, Value
from resnet_ref.kernels.vector.isa import Isa
from resnet_ref.kernels.vector.program import HEADER, OPERATION
from resnet_ref.kernels.vector.tile import ARGUMENTS, TILE, emit_tile, tile_name

MULTIPLY = Layout(
    *HEADER.names,
    *TILE.names,
    # Where things are, and the bytes from a pixel, a tile, a panel or a group to the next. Where one tile's entries in
    # a table serve all, that table does not move on, but x or the residual does.
    *("x", "x_step", "x_group", "table", "table_tile"),
    *("w", "w_panel", "w_group", "bias"),
    *("y", "y_group"),
    *("residual", "residual_step", "residual_table", "residual_table_step"),
    # Tiles of pixels, shared as sharing.py says, and panels of channels, the last perhaps narrower.
    *("tiles", *sharing.FIELDS, "panels"),
    *("full_tall", "full_short", "last_tall", "last_short"),  # tile functions
    *("block_tiles", "block_panels", "by_panel"),
    "in_scratch",  # 1: x and y are relative to the thread's scratch
)


def emit_multiply(e: Emitter) -> None:
    """`multiply(record, task, scratch)`, and the tiles that it calls."""
    for rows, vectors in _tiles(e.isa):
        emit_tile(e, rows, vectors)
    with e.function("multiply", OPERATION) as (record, task, scratch):
        f = e.record(record, MULTIPLY)
        own = e.mul(f.in_scratch, e.block.ptrtoint(scratch, I64))
        f.x, f.y = e.add(f.x, own), e.add(f.y, own)
        f.common = e.at(record, 8 * len(HEADER))
        group, block = e.divmod(task, e.mul(_blocks(e, f.tiles, f.block_tiles), _blocks(e, f.panels, f.block_panels)))
        high, wide = e.divmod(block, _blocks(e, f.panels, f.block_panels))
        tiles = _range(e, high, f.block_tiles, f.tiles)
        panels = _range(e, wide, f.block_panels, f.panels)
        by_panel = e.block.icmp_signed("!=", f.by_panel, I64(0))
        with e.block.if_else(by_panel) as (then, otherwise):
            with then:
                e.loop(*panels, lambda n: e.loop(*tiles, lambda m: _tile(e, f, group, m, n, e.sub(m, tiles[0]))))
            with otherwise:
                e.loop(*tiles, lambda m: e.loop(*panels, lambda n: _tile(e, f, group, m, n, None)))


def _blocks(e: Emitter, total: Value, block: Value) -> Value:
    return e.divmod(e.sub(e.add(total, block), 1), block)[0]


def _range(e: Emitter, number: Value, block: Value, total: Value) -> tuple[Value, Value]:
    first = e.mul(number, block)
    return first, e.least(e.add(first, block), total)


def _tile(e: Emitter, f: SimpleNamespace, group: Value, m: Value, n: Value, nth: Value | None) -> None:
    """Calls tile m of panel n; nth: of how many tiles that this panel is held for, or None."""
    b = e.block
    row = sharing.first_of(e, f, m)
    width = e.isa.panel * FLOAT
    tall = b.icmp_signed("<", m, f.taller)
    last = b.icmp_signed("==", n, e.sub(f.panels, 1))
    function = b.select(last, b.select(tall, f.last_tall, f.last_short), b.select(tall, f.full_tall, f.full_short))
    w = e.at(e.pointer(f.w), e.mul(group, f.w_group), e.mul(n, f.w_panel))
    following = w
    if nth is not None:
        # A tile fetches a line a step of k, so that the first few tiles share the next panel among them.
        parts = max(1, width // LINE)
        share = e.mul(nth, b.udiv(f.w_panel, I64(parts)))
        following = b.select(b.icmp_signed("<", nth, I64(parts)), e.at(w, f.w_panel, share), w)
    e.call_address(
        function,
        ARGUMENTS,
        [
            f.common,
            e.at(e.pointer(f.x), e.mul(group, f.x_group), e.mul(row, f.x_step)),
            e.at(e.pointer(f.table), e.mul(m, f.table_tile)),
            w,
            e.at(e.pointer(f.y), e.mul(group, f.y_group), e.mul(row, f.y_step), e.mul(n, width)),
            e.at(e.pointer(f.bias), e.mul(n, width)),
            e.at(e.pointer(f.residual), e.mul(row, f.residual_step), e.mul(n, width)),
            e.at(e.pointer(f.residual_table), e.mul(row, f.residual_table_step)),
            following,
        ],
    )


def tile_names(isa: Isa) -> list[str]:
    """Every tile function of an instruction set."""
    return [tile_name(*tile) for tile in _tiles(isa)]


def _tiles(isa: Isa) -> Iterator[tuple[int, int]]:
    return product(range(1, isa.rows + 1), range(1, isa.vectors + 1))
