"""Convolution as its definition says, for a Plan: each tap of each pixel is looked up in a table (see tile.py)."""

from collections.abc import Callable

import numpy as np

from resnet_ref.kernels.arrays import Array
from resnet_ref.kernels.conv2d.convolution import Convolution, epilogue, packed, residual_place, tap_places
from resnet_ref.kernels.conv2d.multiply import MULTIPLY
from resnet_ref.kernels.conv2d.pad import PAD
from resnet_ref.kernels.conv2d.products import blocks_of, pack, product, task_count
from resnet_ref.kernels.geometry import Window
from resnet_ref.kernels.vector import sharing
from resnet_ref.kernels.vector.emit import FLOAT
from resnet_ref.kernels.vector.step import Buffer, Map, Memory, Step, Target
from resnet_ref.kernels.vector.tile import LONGEST_SUM


def direct(target: Target, conv: Convolution) -> list[Step]:
    """The convolution by indirection: each tap of each pixel is looked up."""
    if conv.x.pitch == conv.x.c and can_take_dense(conv.cols, conv.x.c, target.library.isa.lanes):
        return _by_kernel_rows(target, conv)
    w, bias = packed(target, conv, "direct", lambda w: pack(w.reshape(1, -1, w.shape[3]), target.library))
    taps = conv.rows.size * conv.cols.size
    pieces = _pieces(conv.x.c)
    depth = conv.x.c // pieces
    if conv.rows.is_identity and conv.cols.is_identity:
        return [_multiply(target, conv, w, bias, conv.x, pieces, depth, None)]

    def table(memory: Memory) -> Array:
        return (tap_places(conv, memory)[:, :, None] + depth * np.arange(pieces)).reshape(-1, taps * pieces)

    return [_multiply(target, conv, w, bias, conv.x, taps * pieces, depth, table)]


def _pieces(channels: int) -> int:
    """Into how many equal parts a tap is cut so that none is longer than LONGEST_SUM; 1 where none are equal."""
    least = -(-channels // LONGEST_SUM)
    return next((pieces for pieces in range(least, 2 * least + 1) if channels % pieces == 0), 1)


def can_take_dense(cols: Window, channels: int, lanes: int) -> bool:
    """Whether pixels may lie side by side, fewer channels than a vector has: where whole kernel rows are one tap."""
    return cols.rate == 1 and cols.size > 1 and channels < lanes


def _by_kernel_rows(target: Target, conv: Convolution) -> list[Step]:
    """With few channels: pad x, so that a whole kernel row of KW * C numbers is one tap."""
    x, rows, cols = conv.x, conv.rows, conv.cols
    height, width = x.h + rows.before + rows.after, x.w + cols.before + cols.after
    padded = Map(x.n, height, width, x.c, x.c, Buffer(x.n * height * width * x.c * FLOAT))
    count, ranges = target.shares(x.n * height)
    pad = Step(
        f"{conv.name}//pad",
        "copy",
        target.library["pad"],
        PAD,
        count,
        (x.buffer,),
        (padded.buffer,),
        lambda memory: dict(
            ranges,
            x=memory.address(x),
            y=memory.address(padded),
            top=rows.before,
            rows=x.h,
            padded_rows=height,
            width=x.w * x.step,
            left=cols.before * x.step,
            right=cols.after * x.step,
        ),
    )
    w, bias = packed(target, conv, "direct", lambda w: pack(w.reshape(1, -1, w.shape[3]), target.library))

    def table(memory: Memory) -> Array:
        ys = (rows.taps(x.h) * width)[None, :, None]  # [1, OH, 1, KH]
        xs = (np.arange(conv.y.w) * cols.stride)[None, None, :, None]
        images = np.arange(x.n)[:, None, None, None] * (height * width)
        return (memory.index(padded) + (images + ys + xs) * x.c).reshape(-1, rows.size)

    return [pad, _multiply(target, conv, w, bias, padded, rows.size, cols.size * x.c, table)]


def _multiply(
    target: Target,
    conv: Convolution,
    w: Array,
    bias: Array,
    x: Map,
    taps: int,
    depth: int,
    table: Callable[[Memory], Array] | None,
) -> Step:
    """One product; without a table pixel p of y is made of pixel p of x."""
    y = conv.y
    isa = target.library.isa
    tiles, heights = sharing.shares(y.pixels, isa.rows)
    panels = -(-y.c // isa.panel)
    blocks = blocks_of(target, tiles, panels, taps * depth, y.c)
    reads = (x.buffer, *conv.reads[1:])  # x may be the padded copy

    def fields(memory: Memory) -> dict[str, int]:
        return {
            **epilogue(conv),
            "taps": taps,
            "depth": depth,
            "y_step": y.step,
            **_where(memory, x, table, taps, depth, isa.rows),
            **residual_place(memory, conv, isa.rows),
            **product(target, heights, tiles, panels, taps * depth, y.c),
            **blocks,
            "x_group": 0,
            "w": w.ctypes.data,
            "w_group": 0,
            "bias": bias.ctypes.data,
            "y": memory.address(y),
            "y_group": 0,
            "in_scratch": 0,
        }

    return Step(
        conv.name,
        "direct",
        target.library["multiply"],
        MULTIPLY,
        task_count(tiles, panels, blocks),
        reads,
        (y.buffer,),
        fields,
        flops=conv.flops,
        weights=(w, bias),
    )


def _where(
    memory: Memory, x: Map, table: Callable[[Memory], Array] | None, taps: int, depth: int, most: int
) -> dict[str, int]:
    """Where x is, and its table: for each tile [taps, pixels of the tallest tile]."""
    if table is None:
        linear = depth * np.arange(taps)[:, None] + x.pitch * np.arange(most)
        start = {"x": memory.address(x), "x_step": x.step}
        return {**start, "table": memory.table(linear), "table_tile": 0, "tap_step": most * 4}
    places = table(memory)  # [pixels, taps]
    tiles, heights = sharing.shares(len(places), most)
    tall = heights["height"] + (heights["taller"] > 0)
    firsts = np.arange(tiles) * heights["height"] + np.minimum(np.arange(tiles), heights["taller"])
    pixels = np.minimum(
        firsts[:, None] + np.arange(tall), len(places) - 1
    )  # [tiles, tall]; a short tile's last is idle
    ordered = memory.table(places[pixels].transpose(0, 2, 1))
    return {"x": memory.base, "x_step": 0, "table": ordered, "table_tile": taps * tall * 4, "tap_step": tall * 4}
