"""Convolution for a Plan: packed weights, tables of where taps lie, and the records of the kernels that use them."""

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np

from resnet_ref.kernels.activation import bounds
from resnet_ref.kernels.arrays import Array
from resnet_ref.kernels.conv2d.multiply import MULTIPLY
from resnet_ref.kernels.conv2d.pad import PAD
from resnet_ref.kernels.conv2d.winograd import FUSED, INPUT, OUTPUT
from resnet_ref.kernels.conv2d.winograd_matrices import TAPS, transformed_weights
from resnet_ref.kernels.geometry import Window
from resnet_ref.kernels.vector import sharing
from resnet_ref.kernels.vector.emit import FLOAT, float_bits
from resnet_ref.kernels.vector.memory import floats
from resnet_ref.kernels.vector.objects import Library
from resnet_ref.kernels.vector.step import TASKS, Buffer, Map, Memory, Step, Target
from resnet_ref.kernels.vector.tile import LONGEST_SUM, tile_name

SMALL_WEIGHTS = 600_000  # bytes that may stay in a core's cache while x streams by
BLOCK_BYTES = 1_000_000  # of x, that a core holds while panels of weights go by
Folded = Callable[[], tuple[Array, Array]]


@dataclass(frozen=True, eq=False)
class Convolution:
    """y = activation(conv(x, w) + bias + clip(residual[:, ::s, ::s], -bound, bound)).

    folded: w [KH, KW, C, F] and bias [F], batch norm already in them; called only where they are not packed yet.
    """

    name: str
    x: Map
    y: Map
    rows: Window
    cols: Window
    folded: Folded
    activation: str | None
    residual: Map | None = None
    residual_stride: int = 1
    bound: float | None = None

    @property
    def kind(self) -> str:
        """What convolutions that cost the same have in common."""
        x, y = self.x, self.y
        shapes = f"{x.n}x{x.h}x{x.w}x{x.c} to {y.h}x{y.w}x{y.c}"
        return f"{shapes}, rows {tuple(self.rows)}, cols {tuple(self.cols)}, residual {self.residual is not None}"

    @property
    def reads(self) -> tuple[Buffer, ...]:
        """x's buffer, and the residual's."""
        return (self.x.buffer,) if self.residual is None else (self.x.buffer, self.residual.buffer)

    @property
    def flops(self) -> int:
        """A multiply-add counted as two."""
        return 2 * self.y.pixels * self.y.c * self.rows.size * self.cols.size * self.x.c


def packed(target: Target, conv: Convolution, method: str, layout: Callable[[Array], Array]) -> tuple[Array, Array]:
    """(weights as `layout` makes them of w [KH, KW, C, F], bias), from this call or an earlier one."""
    key = (conv.name, method)
    if key not in target.packed:
        w, bias = conv.folded()
        wide = floats(conv.y.pitch)
        wide[: len(bias)] = bias
        target.packed[key] = (layout(w), wide)
    return target.packed[key]


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


def tap_places(conv: Convolution, memory: Memory) -> Array:
    """Where each output's taps lie, in floats from the memory's base: [pixels of y, taps]."""
    places = conv.x.taps(memory.index(conv.x), conv.rows, conv.cols, memory.index(memory.zeros))
    return places.reshape(conv.y.pixels, -1)


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
    panels = -(-y.pitch // isa.panel)
    blocks = _blocks(target, tiles, panels, taps * depth, y.pitch)
    reads = (x.buffer, *conv.reads[1:])  # x may be the padded copy

    def fields(memory: Memory) -> dict[str, int]:
        return {
            **epilogue(conv),
            "taps": taps,
            "depth": depth,
            "y_step": y.step,
            **_where(memory, x, table, taps, depth, isa.rows),
            **residual_place(memory, conv, isa.rows),
            **_product(target, heights, tiles, panels, taps * depth, y.pitch),
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
        _task_count(tiles, panels, blocks),
        reads,
        (y.buffer,),
        fields,
        flops=conv.flops,
        weights=(w, bias),
    )


def epilogue(conv: Convolution | None) -> dict[str, int]:
    """What follows the sums; without a convolution nothing."""
    low, high = bounds(None if conv is None else conv.activation)
    bound = np.inf if conv is None or conv.bound is None else conv.bound
    return {
        "has_residual": int(conv is not None and conv.residual is not None),
        "has_bounds": int(np.isfinite(high) or np.isfinite(bound)),
        "low": float_bits(low),
        "high": float_bits(high),
        "bound": float_bits(bound),
    }


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


def residual_place(memory: Memory, conv: Convolution, most: int) -> dict[str, int]:
    """Where the residual is; most: pixels that one entry of a shared table must serve."""
    residual = conv.residual
    if residual is None:
        return {"residual": 0, "residual_step": 0, "residual_table": 0, "residual_table_step": 0}
    if conv.residual_stride == 1:
        linear = memory.table(np.arange(most) * residual.pitch)
        start = memory.address(residual)
        return {
            "residual": start,
            "residual_step": residual.step,
            "residual_table": linear,
            "residual_table_step": 0,
        }
    places = memory.table(memory.index(residual) + residual.strided(conv.residual_stride))
    return {"residual": memory.base, "residual_step": 0, "residual_table": places, "residual_table_step": 4}


def _product(
    target: Target, heights: dict[str, int], tiles: int, panels: int, depth: int, pitch: int
) -> dict[str, int]:
    """Tiles, panels, and the functions that compute them."""
    library, lanes = target.library, target.library.isa.lanes
    full = library.isa.vectors
    last = (pitch - (panels - 1) * library.isa.panel) // lanes
    short, tall = heights["height"], heights["height"] + (heights["taller"] > 0)
    return {
        "tiles": tiles,
        **heights,
        "panels": panels,
        "w_panel": depth * library.isa.panel * FLOAT,
        "full_tall": library[tile_name(tall, full)],
        "full_short": library[tile_name(short, full)],
        "last_tall": library[tile_name(tall, last)],
        "last_short": library[tile_name(short, last)],
    }


def _blocks(target: Target, tiles: int, panels: int, depth: int, pitch: int) -> dict[str, int]:
    """How a product is cut into tasks, and in which order each is gone through (see multiply.py)."""
    threads, rows = target.threads, target.library.isa.rows
    if tiles < 4 * threads:  # too few tiles to share out: share the panels
        return {"block_tiles": tiles, "block_panels": -(-panels // (TASKS * threads)), "by_panel": 1}
    if depth * pitch * FLOAT <= SMALL_WEIGHTS:
        return {"block_tiles": -(-tiles // (2 * TASKS * threads)), "block_panels": panels, "by_panel": 0}
    held = max(4, BLOCK_BYTES // (depth * FLOAT * rows))
    blocks = threads * -(-tiles // (threads * held))
    return {
        "block_tiles": -(-tiles // blocks),
        "block_panels": -(-panels // -(-2 * TASKS // blocks)),
        "by_panel": 1,
    }


def _task_count(tiles: int, panels: int, blocks: dict[str, int]) -> int:
    return -(-tiles // blocks["block_tiles"]) * -(-panels // blocks["block_panels"])


def can_winograd(conv: Convolution) -> bool:
    """Whether Winograd's algorithm computes this convolution: 3x3, stride 1, no residual; any rate and padding."""
    return (
        conv.rows.size == conv.cols.size == TAPS and conv.rows.stride == conv.cols.stride == 1 and conv.residual is None
    )


def winograd(target: Target, conv: Convolution, m: int, fused_tiles: int | None) -> list[Step]:
    """The convolution by F(m x m, 3 x 3); fused_tiles: at most so many a task, or None for staged."""
    w, bias = packed(target, conv, f"winograd_{m}", lambda w: pack(transformed_weights(w, m), target.library))
    ys, xs = _tile_origins(conv.y.h, m, conv.rows.rate), _tile_origins(conv.y.w, m, conv.cols.rate)
    tiles = conv.x.n * len(ys) * len(xs)
    build = _Winograd(target, conv, m, w, bias, ys, xs, tiles)
    return build.staged() if fused_tiles is None else build.fused(fused_tiles)


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
        conv, library = self.conv, self.target.library
        v = Buffer(self.groups * self.tiles * conv.x.step)
        product = Buffer(self.groups * self.tiles * conv.y.step)
        count, ranges = self.target.shares(self.tiles)
        tiles, heights = sharing.shares(self.tiles, library.isa.rows)
        panels = -(-conv.y.pitch // library.isa.panel)
        blocks = {"block_tiles": tiles, "block_panels": panels, "by_panel": 1}

        def stage(name: str, layout, function: str, count: int, reads, writes, fields) -> Step:  # type: ignore[no-untyped-def]
            return Step(
                f"{conv.name}//{name}",
                f"F({self.m}x{self.m}) staged",
                library[function],
                layout,
                count,
                reads,
                writes,
                fields,
            )

        return [
            stage(
                "input",
                INPUT,
                f"winograd_input_{self.m}",
                count,
                (conv.x.buffer,),
                (v,),
                lambda memory: self._input(memory, ranges, memory.address(v), self.tiles, 0),
            ),
            Step(
                conv.name,
                f"F({self.m}x{self.m}) staged",
                library["multiply"],
                MULTIPLY,
                self.groups,
                (v,),
                (product,),
                lambda memory: self._product(
                    memory, heights, tiles, memory.address(v), memory.address(product), self.tiles, blocks, 0
                ),
                flops=conv.flops,
                weights=(self.w, self.bias),
            ),
            stage(
                "output",
                OUTPUT,
                f"winograd_output_{self.m}",
                count,
                (product,),
                (conv.y.buffer,),
                lambda memory: self._output(memory, ranges, memory.address(product), self.tiles, 0),
            ),
        ]

    def fused(self, most: int) -> list[Step]:
        conv, library = self.conv, self.target.library
        threads = self.target.threads
        tasks = threads * -(-self.tiles // (threads * most))  # as many for each thread
        count, ranges = sharing.shares(self.tiles, -(-self.tiles // tasks))
        held = ranges["height"] + (ranges["taller"] > 0)
        v_bytes = self.groups * held * conv.x.step
        panels = -(-conv.y.pitch // library.isa.panel)

        def fields(memory: Memory) -> dict[str, int]:
            def record(layout, values: dict[str, int]) -> int:  # type: ignore[no-untyped-def]
                header = {"function": 0, "tasks": 0, "barrier": 0}
                return memory.keep(np.array(layout.pack(**header, **values), np.int64))

            def product(size: int) -> int:
                tiles, heights = sharing.shares(size, library.isa.rows)
                blocks = {"block_tiles": tiles, "block_panels": panels, "by_panel": 1}
                return record(MULTIPLY, self._product(memory, heights, tiles, 0, v_bytes, held, blocks, 1))

            return {
                "taller": ranges["taller"],
                "groups": self.groups,
                "input": library[f"winograd_input_{self.m}"],
                "input_record": record(INPUT, self._input(memory, ranges, 0, held, 1)),
                "multiply": library["multiply"],
                "tall": product(held),
                "short": product(ranges["height"]),
                "output": library[f"winograd_output_{self.m}"],
                "output_record": record(OUTPUT, self._output(memory, ranges, v_bytes, held, 1)),
            }

        return [
            Step(
                conv.name,
                f"F({self.m}x{self.m}) fused",
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

    def _product(
        self,
        memory: Memory,
        heights: dict[str, int],
        tiles: int,
        x: int,
        y: int,
        rows: int,
        blocks: dict[str, int],
        in_scratch: int,
    ) -> dict[str, int]:
        conv = self.conv
        depth, isa = conv.x.c, self.target.library.isa
        return {
            **epilogue(None),
            "taps": 1,
            "depth": depth,
            "y_step": conv.y.step,
            **_product(self.target, heights, tiles, -(-conv.y.pitch // isa.panel), depth, conv.y.pitch),
            **blocks,
            "x": x,
            "x_step": conv.x.step,
            "x_group": rows * conv.x.step,
            "table": memory.table(np.arange(isa.rows) * conv.x.pitch),
            "table_tile": 0,
            "tap_step": 0,
            "w": self.w.ctypes.data,
            "w_group": self.w[0].nbytes,
            "bias": memory.address(memory.zeros),
            "y": y,
            "y_group": rows * conv.y.step,
            "residual": 0,
            "residual_step": 0,
            "residual_table": 0,
            "residual_table_step": 0,
            "in_scratch": in_scratch,
        }
