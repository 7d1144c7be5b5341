"""Convolution from bf16 products for a Plan: weights taken apart and packed, tables, records."""

import numpy as np

from resnet_ref.kernels.arrays import Array
from resnet_ref.kernels.conv2d.bf16 import (
    BF16,
    BLOCK,
    SUMS,
    TILE_CHANNELS,
    TILE_PIXELS,
    function_name,
    term_count,
)
from resnet_ref.kernels.conv2d.convolution import Convolution, epilogue, packed, residual_place, tap_places
from resnet_ref.kernels.vector.matrix import DEPTH, SIDE
from resnet_ref.kernels.vector.memory import aligned
from resnet_ref.kernels.vector.step import Memory, Step, Target


def terms(x: Array, count: int) -> Array:
    """[count, ...] float32 numbers of 8 bits each that add up to x (finite), as the kernel takes x apart (bf16.py)."""
    found, left = [], x.astype(np.float32)
    for _ in range(count):
        bits = left.view(np.uint32)
        rounded = bits + 0x7FFF + ((bits >> 16) & 1)
        if count > 1:
            rounded = np.where(rounded & np.uint32(0x7F800000) == 0x7F800000, bits, rounded)
        found.append((rounded & np.uint32(0xFFFF0000)).view(np.float32))
        left = left - found[-1]
    return np.stack(found)


def pack(w: Array, count: int) -> Array:
    """w [taps, C, F] -> bf16 [panel][tap, block of 32 C][term][half][pair][16 channels][2], zeros beyond C and F."""
    taps, depth, features = w.shape
    blocks, panels = -(-depth // DEPTH), -(-features // TILE_CHANNELS)
    wide = np.zeros((taps, blocks * DEPTH, panels * TILE_CHANNELS), np.float32)
    wide[:, :depth, :features] = w
    halves = (terms(wide, count).view(np.uint32) >> 16).astype(np.uint16)
    shaped = halves.reshape(count, taps * blocks, DEPTH // 2, 2, panels, 2, SIDE)
    ordered = shaped.transpose(4, 1, 0, 5, 2, 6, 3)
    result = aligned(ordered.size * 2).view(np.uint16)
    result[:] = ordered.reshape(-1)
    return result.reshape(panels, -1)


def bf16(target: Target, conv: Convolution, precision: str) -> list[Step]:
    """The convolution by products of bf16; precision: one of bf16.PRODUCTS."""
    count = term_count(precision)
    taps, depth = conv.rows.size * conv.cols.size, conv.x.c
    w, bias = packed(target, conv, precision, lambda w: pack(w.reshape(taps, depth, -1), count))
    y, blocks = conv.y, -(-depth // DEPTH)
    tasks, ranges = target.shares(-(-y.pixels // TILE_PIXELS))

    def fields(memory: Memory) -> dict[str, int]:
        return {
            **ranges,
            **epilogue(conv),
            **residual_place(memory, conv, 1),
            "x": memory.base,
            "table": memory.table(_tiled(tap_places(conv, memory))),
            "table_tile": taps * TILE_PIXELS * 4,
            "tap_step": TILE_PIXELS * 4,
            "taps": taps,
            "depth": depth,
            "blocks": blocks,
            "w": w.ctypes.data,
            "w_panel": w[0].nbytes,
            "bias": bias.ctypes.data,
            "y": memory.address(y),
            "y_step": y.step,
            "pixels": y.pixels,
            "panels": len(w),
            "vectors": y.pitch // target.library.isa.lanes,
        }

    return [
        Step(
            conv.name,
            precision,
            target.library[function_name(precision)],
            BF16,
            tasks,
            conv.reads,
            (y.buffer,),
            fields,
            scratch=2 * SUMS + count * taps * blocks * BLOCK,
            flops=conv.flops,
            weights=(w, bias),
        )
    ]


def _tiled(places: Array) -> Array:
    """[pixels, taps] -> [tiles, taps, pixels of a tile]; what the last tile has too much repeats the last pixel."""
    pixels = np.minimum(np.arange(-(-len(places) // TILE_PIXELS) * TILE_PIXELS), len(places) - 1)
    return places[pixels].reshape(-1, TILE_PIXELS, places.shape[1]).transpose(0, 2, 1)
