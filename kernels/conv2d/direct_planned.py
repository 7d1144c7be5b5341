"""Convolution as its definition says, for a Plan: each tap of each pixel is looked up in a table (see tile.py)."""

from collections.abc import Callable

import numpy as np

from resnet_ref.kernels.arrays import Array
from resnet_ref.kernels.conv2d.convolution import Convolution, epilogue, packed, residual_place, tap_places
from resnet_ref.kernels.conv2d.multiply import MULTIPLY
from resnet_ref.kernels.conv2d.pad import PAD
from resnet_ref.kernels.conv2d.products import equal_parts, pack, product, row_by_row, task_count
from resnet_ref.kernels.geometry import Window
from resnet_ref.kernels.vector import sharing
from resnet_ref.kernels.vector.emit import FLOAT
from resnet_ref.kernels.vector.step import Buffer, Map, Memory, Step, Target

Where = Callable[[Memory], dict[str, int]]


def direct(target: Target, conv: Convolution) -> list[Step]:
    """The convolution by indirection: each tap of each pixel is looked up."""
    if conv.x.pitch == conv.x.c and can_take_dense(conv.cols, conv.x.c, target.library.isa.lanes):
        return _by_kernel_rows(target, conv)
    if conv.rows.is_identity and conv.cols.is_identity:
        rows = target.library.isa.rows

        def pixels(memory: Memory) -> dict[str, int]:
            return {"x": memory.address(conv.x), **row_by_row(memory, conv.x, rows)}

        return [_multiply(target, conv, conv.x, pixels)]
    parts = equal_parts(conv.x.c)
    depth = conv.x.c // parts

    def taps(memory: Memory) -> dict[str, int]:
        places = tap_places(conv, memory)
        cut = (places[:, :, None] + depth * np.arange(parts)).reshape(len(places), -1)
        return _looked_up(target, memory, cut, depth)

    return [_multiply(target, conv, conv.x, taps)]


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

    def kernel_rows(memory: Memory) -> dict[str, int]:
        ys = (rows.taps(x.h) * width)[None, :, None]  # [1, OH, 1, KH]
        xs = (np.arange(conv.y.w) * cols.stride)[None, None, :, None]
        images = np.arange(x.n)[:, None, None, None] * (height * width)
        places = memory.index(padded) + (images + ys + xs) * x.c
        return _looked_up(target, memory, places.reshape(-1, rows.size), cols.size * x.c)

    return [pad, _multiply(target, conv, padded, kernel_rows)]


def _multiply(target: Target, conv: Convolution, x: Map, where: Where) -> Step:
    """One product; `where`: x, its table, and how much is summed. x: conv's, or the padded copy."""
    w, bias = packed(target, conv, "direct", lambda w: pack(w.reshape(1, -1, w.shape[3]), target.library))
    y = conv.y
    cut = product(target, y.pixels, conv.rows.size * conv.cols.size * conv.x.c, y.c)

    def fields(memory: Memory) -> dict[str, int]:
        return {
            **epilogue(conv),
            **where(memory),
            **residual_place(memory, conv, target.library.isa.rows),
            **cut,
            "x_group": 0,
            "w": w.ctypes.data,
            "w_group": 0,
            "bias": bias.ctypes.data,
            "y": memory.address(y),
            "y_step": y.step,
            "y_group": 0,
            "in_scratch": 0,
        }

    return Step(
        conv.name,
        "direct",
        target.library["multiply"],
        MULTIPLY,
        task_count(cut),
        (x.buffer, *conv.reads[1:]),
        (y.buffer,),
        fields,
        flops=conv.flops,
        weights=(w, bias),
    )


def _looked_up(target: Target, memory: Memory, places: Array, depth: int) -> dict[str, int]:
    """The table of each tile [taps, pixels of the tallest], of places [pixels, taps]."""
    taps = places.shape[1]
    tiles, heights = sharing.shares(len(places), target.library.isa.rows)
    tall = sharing.tallest(heights)
    # A tile that is not the tallest leaves its last entry idle.
    pixels = np.minimum(sharing.firsts(tiles, heights)[:, None] + np.arange(tall), len(places) - 1)
    return {
        "taps": taps,
        "depth": depth,
        "x": memory.base,
        "x_step": 0,
        "table": memory.table(places[pixels].transpose(0, 2, 1)),
        "table_tile": taps * tall * 4,
        "tap_step": tall * 4,
    }
