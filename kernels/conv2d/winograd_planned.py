"""Winograd's convolution for a Plan: transformed weights, tables of tiles, the stages' records."""

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np

from resnet_ref.kernels.activation import bounds
from resnet_ref.kernels.arrays import Array
from resnet_ref.kernels.conv2d.convolution import Convolution, epilogue, packed
from resnet_ref.kernels.conv2d.multiply import MULTIPLY
from resnet_ref.kernels.conv2d.products import pack, product, row_by_row
from resnet_ref.kernels.conv2d.winograd import FUSED, INPUT, OUTPUT
from resnet_ref.kernels.conv2d.winograd_matrices import TAPS, transformed_weights
from resnet_ref.kernels.geometry import Window
from resnet_ref.kernels.vector import sharing
from resnet_ref.kernels.vector.emit import Layout, float_bits
from resnet_ref.kernels.vector.program import HEADER
from resnet_ref.kernels.vector.step import Buffer, Map, Memory, Step, Target

Fields = Callable[[Memory], dict[str, int]]


def can_winograd(conv: Convolution) -> bool:
    """Whether Winograd's algorithm computes this convolution: no residual, and windows that it takes."""
    return takes(conv.rows, conv.cols) and conv.residual is None


def takes(rows: Window, cols: Window) -> bool:
    """3x3, stride 1; any rate and padding. Pixels must be whole vectors."""
    return rows.size == cols.size == TAPS and rows.stride == cols.stride == 1


def winograd(target: Target, conv: Convolution, m: int, fused_tiles: int | None) -> list[Step]:
    """The convolution by F(m x m, 3 x 3); fused_tiles: at most so many a task, or None for staged."""
    w, bias = packed(target, conv, f"winograd_{m}", lambda w: pack(transformed_weights(w, m), target.library))
    ys, xs = _tile_origins(conv.y.h, m, conv.rows.rate), _tile_origins(conv.y.w, m, conv.cols.rate)
    tiles = conv.x.n * len(ys) * len(xs)
    build = _Winograd(target, conv, m, w, bias, ys, xs, tiles)
    return build.staged() if fused_tiles is None else build.fused(fused_tiles)


def name(m: int, fused_tiles: int | None) -> str:
    """What the method is called, as in `winograd`."""
    return f"F({m}x{m}) {'staged' if fused_tiles is None else 'fused'}"


def tile_count(conv: Convolution, m: int) -> int:
    """Tiles of m x m outputs that cover y."""
    return conv.x.n * len(_tile_origins(conv.y.h, m, conv.rows.rate)) * len(_tile_origins(conv.y.w, m, conv.cols.rate))


def _tile_origins(outputs: int, m: int, rate: int) -> Array:
    """First output of each tile along one axis; a tile's outputs are `rate` apart."""
    return np.concatenate([np.arange(phase, outputs, m * rate) for phase in range(min(rate, outputs))])


@dataclass(frozen=True, eq=False)
class _Winograd:
    target: Target
    conv: Convolution
    m: int
    w: Array
    bias: Array
    ys: Array
    xs: Array
    tiles: int

    @property
    def groups(self) -> int:
        return (self.m + TAPS - 1) ** 2

    def staged(self) -> list[Step]:
        x, y = self.conv.x, self.conv.y
        v, sums = (Buffer(self.groups * self.tiles * of.step) for of in (x, y))
        count, ranges = self.target.shares(self.tiles)

        def step(
            part: str, function: str, layout: Layout, tasks: int, read: Buffer, written: Buffer, fields: Fields
        ) -> Step:
            return Step(
                f"{self.conv.name}{part}",
                name(self.m, None),
                self.target.library[function],
                layout,
                tasks,
                (read,),
                (written,),
                fields,
                flops=0 if part else self.conv.flops,
                weights=() if part else (self.w, self.bias),
            )

        def transformed(memory: Memory) -> dict[str, int]:
            return self._input(memory, ranges, memory.address(v), self.tiles, 0)

        def multiplied(memory: Memory) -> dict[str, int]:
            return self._product(memory, self.tiles, memory.address(v), memory.address(sums), self.tiles, 0)

        def finished(memory: Memory) -> dict[str, int]:
            return self._output(memory, ranges, memory.address(sums), self.tiles, 0)

        return [
            step("//input", f"winograd_input_{self.m}", INPUT, count, x.buffer, v, transformed),
            step("", "multiply", MULTIPLY, self.groups, v, sums, multiplied),
            step("//output", f"winograd_output_{self.m}", OUTPUT, count, sums, y.buffer, finished),
        ]

    def fused(self, most: int) -> list[Step]:
        conv, library, threads = self.conv, self.target.library, self.target.threads
        tasks = threads * -(-self.tiles // (threads * most))  # as many for each thread
        count, ranges = sharing.shares(self.tiles, -(-self.tiles // tasks))
        held = sharing.tallest(ranges)
        v_bytes = self.groups * held * conv.x.step

        def fields(memory: Memory) -> dict[str, int]:
            def inner(layout: Layout, values: dict[str, int]) -> int:
                """The address of a record that only the fused kernel reads."""
                unused = dict.fromkeys(HEADER.names, 0)
                return memory.keep(np.array(layout.pack(**unused, **values), np.int64))

            def product_of(tiles: int) -> int:
                return inner(MULTIPLY, self._product(memory, tiles, 0, v_bytes, held, 1))

            return {
                "taller": ranges["taller"],
                "groups": self.groups,
                "input": library[f"winograd_input_{self.m}"],
                "input_record": inner(INPUT, self._input(memory, ranges, 0, held, 1)),
                "multiply": library["multiply"],
                "tall": product_of(held),
                "short": product_of(ranges["height"]),
                "output": library[f"winograd_output_{self.m}"],
                "output_record": inner(OUTPUT, self._output(memory, ranges, v_bytes, held, 1)),
            }

        return [
            Step(
                conv.name,
                name(self.m, most),
                library["winograd_fused"],
                FUSED,
                count,
                (conv.x.buffer,),
                (conv.y.buffer,),
                fields,
                scratch=v_bytes + self.groups * held * conv.y.step,
                flops=conv.flops,
                weights=(self.w, self.bias),
            )
        ]

    def _input(self, memory: Memory, ranges: dict[str, int], v: int, tiles: int, in_scratch: int) -> dict[str, int]:
        x = self.conv.x
        return {
            **ranges,
            "in_scratch": in_scratch,
            "x": memory.base,
            "table": memory.table(self._table(memory, x, -self.conv.rows.before, -self.conv.cols.before, memory.zeros)),
            "v": v,
            "v_step": x.step,
            "v_group": tiles * x.step,
        }

    def _output(self, memory: Memory, ranges: dict[str, int], v: int, tiles: int, in_scratch: int) -> dict[str, int]:
        y = self.conv.y
        low, high = bounds(self.conv.activation)
        return {
            **ranges,
            "in_scratch": in_scratch,
            "y": memory.base,
            "table": memory.table(self._table(memory, y, 0, 0, memory.waste)),
            "v": v,
            "v_step": y.step,
            "v_group": tiles * y.step,
            "bias": self.bias.ctypes.data,
            "low": float_bits(low),
            "high": float_bits(high),
        }

    def _table(self, memory: Memory, of: Map, top: int, left: int, outside: Buffer) -> Array:
        """Places of each tile's pixels in a map: of x, n x n from (top, left) of the tile; of y, m x m."""
        side = self.m if of is self.conv.y else self.m + TAPS - 1
        ys = (self.ys[:, None] + top + self.conv.rows.rate * np.arange(side))[:, None, :, None]
        xs = (self.xs[:, None] + left + self.conv.cols.rate * np.arange(side))[None, :, None, :]
        return of.places(memory.index(of), ys, xs, memory.index(outside))  # [N, TY, TX, side, side]

    def _product(self, memory: Memory, tiles: int, x: int, y: int, rows: int, in_scratch: int) -> dict[str, int]:
        """`tiles` of V at x times U, to y; V and M have `rows` tiles in a group."""
        conv = self.conv
        return {
            **epilogue(None),
            **row_by_row(memory, conv.x, self.target.library.isa.rows),
            **product(self.target, tiles, conv.x.c, conv.y.c, in_one=True),
            "x": x,
            "x_group": rows * conv.x.step,
            "w": self.w.ctypes.data,
            "w_group": self.w[0].nbytes,
            "bias": memory.address(memory.zeros),
            "y": y,
            "y_step": conv.y.step,
            "y_group": rows * conv.y.step,
            "residual": 0,
            "residual_step": 0,
            "residual_table": 0,
            "residual_table_step": 0,
            "in_scratch": in_scratch,
        }
