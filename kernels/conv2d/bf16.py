"""Convolution from products of bf16: a float32 is a sum of terms of 8 bits each, and products of terms add up.

    x = x1 + x2 + x3,  w = w1 + w2 + w3

    "bfloat16"  x1 w1                                              about 8 bits
    "bf16x3"    x1 w2 + x2 w1 + x1 w1                              about 17
    "bf16x6"    x1 w3 + x2 w2 + x3 w1 + x1 w2 + x2 w1 + x1 w1      float32's 24

Finite numbers have finite terms; infinity comes out as NaN where there are several terms (infinity times 0).

A matrix unit does one such product many times faster than a vector unit a float32's. A tile is 32 pixels by 32
channels, four registers of sums. Its pixels are looked up in a table, as in tile.py, taken apart into terms, and laid
out as the registers want them, once for all channels:

    x [term][block of 32 k][32 pixels][32 k]
    w [panel][block of 32 k][term][2 halves][16 pairs of k][16 channels][2]
"""

from types import SimpleNamespace

from llvmlite import ir

from resnet_ref.kernels.vector import sharing
from resnet_ref.kernels.vector.emit import FLOAT, I32, I64, Emitter, Layout, Value
from resnet_ref.kernels.vector.matrix import DEPTH, ROW, SIDE, Registers, registers
from resnet_ref.kernels.vector.program import HEADER, OPERATION
from resnet_ref.kernels.vector.tile import LONGEST_SUM, emit_finish

Products = tuple[tuple[int, int], ...]
# Products of terms (x's, w's), the smallest first.
PRODUCTS: dict[str, Products] = {
    "bfloat16": ((0, 0),),
    "bf16x3": ((0, 1), (1, 0), (0, 0)),
    "bf16x6": ((0, 2), (1, 1), (2, 0), (0, 1), (1, 0), (0, 0)),
}
TILE_PIXELS = TILE_CHANNELS = 2 * SIDE
BLOCK = 2 * SIDE * ROW  # bytes of 32 x 32 bf16
SUMS = TILE_PIXELS * TILE_CHANNELS * FLOAT  # bytes of a tile's sums
LONGEST = LONGEST_SUM // DEPTH  # blocks of k added in a register, before the sums are put aside
# Tiles are shared among the tasks. taps, depth: as in tile.py; blocks: of 32 k in a tap. pixels: of y. vectors: of a
# pixel of y.
BF16 = Layout(
    *HEADER.names,
    *sharing.FIELDS,
    *("x", "table", "table_tile", "tap_step", "taps", "depth", "blocks"),
    *("w", "w_panel", "bias", "y", "y_step", "pixels", "panels", "vectors"),
    *("residual", "residual_step", "residual_table", "residual_table_step"),
    *("has_residual", "has_bounds", "low", "high", "bound"),
)


def term_count(precision: str) -> int:
    """Terms of each number that a precision uses."""
    return 1 + max(max(product) for product in PRODUCTS[precision])


def function_name(precision: str) -> str:
    """The kernel's name."""
    return f"multiply_{precision}"


def emit_bf16(e: Emitter) -> None:
    """multiply_<precision>(record, task, scratch), where the instruction set has matrix registers."""
    for precision in PRODUCTS if e.isa.matrix else ():
        with e.function(function_name(precision), OPERATION) as (record, task, scratch):
            _emit_multiply(e, e.record(record, BF16), task, scratch, precision)


def _emit_multiply(e: Emitter, f: SimpleNamespace, task: Value, scratch: Value, precision: str) -> None:
    f.all_blocks = e.mul(f.taps, f.blocks)
    unit = registers(e)
    sums, packed = scratch, e.at(scratch, 2 * SUMS)

    def tile(m: Value) -> None:
        _pack(e, f, m, packed, term_count(precision))

        def panel(n: Value) -> None:
            _sum(e, f, unit, e.at(e.pointer(f.w), e.mul(n, f.w_panel)), sums, packed, precision)
            _finish(e, f, m, n, sums)

        e.loop(0, f.panels, panel)

    e.loop(*sharing.share(e, f, task), tile)
    unit.release()


def _pack(e: Emitter, f: SimpleNamespace, m: Value, packed: Value, terms: int) -> None:
    """Takes the pixels of tile m apart."""
    x = e.pointer(f.x)
    table = e.at(e.pointer(f.table), e.mul(m, f.table_tile))
    lanes = ir.Constant(ir.VectorType(I64, e.isa.lanes), list(range(e.isa.lanes)))

    def tap(t: Value) -> None:
        def row(r: Value) -> None:
            pixel = e.at(x, e.index(e.at(table, e.mul(t, f.tap_step), e.mul(r, 4))))
            place = e.at(packed, e.mul(e.mul(t, f.blocks), BLOCK), e.mul(r, ROW))

            def block(b: Value) -> None:
                for half in range(DEPTH // e.isa.lanes):
                    k = e.add(e.mul(b, DEPTH), half * e.isa.lanes)
                    # What lies behind a pixel's last channel is anything, infinity too: it must not be multiplied.
                    inside = e.block.icmp_signed("<", lanes, e.splat(e.sub(f.depth, k)))
                    value = e.load(e.vector, e.at(pixel, e.mul(k, FLOAT)))
                    value = e.block.select(inside, value, e.constant(0.0))
                    target = e.at(place, e.mul(b, BLOCK), half * e.isa.lanes * 2)
                    for term, bits in enumerate(_terms(e, value, terms)):
                        e.store(bits, e.at(target, e.mul(e.mul(f.all_blocks, BLOCK), term)), 2)

            e.loop(0, f.blocks, block)

        e.loop(0, TILE_PIXELS, row)

    e.loop(0, f.taps, tap)


def _terms(e: Emitter, value: Value, terms: int) -> list[Value]:
    """Vectors of bf16 that add up to a vector of float32, each the nearest to what is left (ties to even).

    Of several terms none is infinite unless the number is: the largest, from 3.396e38 on, are cut instead of rounded
    up, lest what is left be infinite too.
    """
    kind = ir.VectorType(I32, e.isa.lanes)

    def every(number: int) -> Value:
        return ir.Constant(kind, [number] * e.isa.lanes)

    found = []
    for _ in range(terms):
        bits = e.block.bitcast(value, kind)
        odd = e.block.and_(e.block.lshr(bits, every(16)), every(1))
        rounded = e.block.add(e.block.add(bits, every(0x7FFF)), odd)
        if terms > 1:
            is_finite = e.block.icmp_signed("!=", e.block.and_(rounded, every(0x7F800000)), every(0x7F800000))
            rounded = e.block.select(is_finite, rounded, bits)
        quiet = e.block.or_(bits, every(0x400000))
        rounded = e.block.select(e.block.fcmp_ordered("ord", value, value), rounded, quiet)  # NaN stays NaN
        rounded = e.block.and_(rounded, every(-65536))
        found.append(e.block.trunc(e.block.lshr(rounded, every(16)), ir.VectorType(ir.IntType(16), e.isa.lanes)))
        term = e.block.bitcast(rounded, e.vector)
        left = e.block.fsub(value, term)
        value = e.block.select(e.block.fcmp_ordered("ord", left, left), left, e.constant(0.0))  # infinity - infinity
    return found


def _sum(e: Emitter, f: SimpleNamespace, unit: Registers, w: Value, sums: Value, packed: Value, precision: str) -> None:
    """sums [32, 32] of a tile and a panel."""
    products, terms = PRODUCTS[precision], term_count(precision)
    partial = e.at(sums, SUMS)

    def chunk(number: Value) -> None:
        first = e.mul(number, LONGEST)
        last = e.least(e.add(first, LONGEST), f.all_blocks)
        for register in range(4):
            unit.zero(register)
        e.loop(first, last, lambda b: _block(e, f, unit, w, packed, products, terms, b))
        for register in range(4):
            place = (register // 2) * SIDE * TILE_CHANNELS * FLOAT + (register % 2) * SIDE * FLOAT
            unit.store(register, e.at(partial, place), TILE_CHANNELS * FLOAT)

        def add(i: Value) -> None:
            offset = e.mul(i, e.isa.lanes * FLOAT)
            value = e.load(e.vector, e.at(partial, offset))
            (value,) = e.when(number, [value], lambda v: [e.block.fadd(v[0], e.load(e.vector, e.at(sums, offset)))])
            e.store(value, e.at(sums, offset))

        e.loop(0, SUMS // (e.isa.lanes * FLOAT), add)

    e.loop(0, e.divmod(e.add(f.all_blocks, LONGEST - 1), LONGEST)[0], chunk)


def _block(
    e: Emitter, f: SimpleNamespace, unit: Registers, w: Value, packed: Value, products: Products, terms: int, b: Value
) -> None:
    """Adds the products of one block of 32 k; registers 0..3 hold sums, 4, 5 pixels, 6, 7 weights."""
    held: tuple[int | None, int | None] = (None, None)
    for x_term, w_term in products:
        if held[0] != x_term:
            place = e.at(packed, e.mul(e.add(e.mul(f.all_blocks, x_term), b), BLOCK))
            for half in range(2):
                unit.load(4 + half, e.at(place, half * SIDE * ROW), ROW)
        if held[1] != w_term:
            place = e.at(w, e.mul(b, terms * BLOCK), w_term * BLOCK)
            for half in range(2):
                unit.load(6 + half, e.at(place, half * SIDE * ROW), ROW)
        held = (x_term, w_term)
        for register in range(4):
            unit.multiply(register, 4 + register // 2, 6 + register % 2)


def _finish(e: Emitter, f: SimpleNamespace, m: Value, n: Value, sums: Value) -> None:
    """y = clamp(sums + bias + residual) for the pixels and channels that there are."""
    first = e.mul(m, TILE_PIXELS)
    left = e.mul(n, TILE_CHANNELS * FLOAT)
    vectors = e.least(e.whole(TILE_CHANNELS // e.isa.lanes), e.sub(f.vectors, e.mul(n, TILE_CHANNELS // e.isa.lanes)))

    def pixel(row: Value) -> None:
        p = e.add(first, row)
        y = e.at(e.pointer(f.y), e.mul(p, f.y_step), left)
        residual = e.at(e.pointer(f.residual), e.mul(p, f.residual_step), left)
        table = e.at(e.pointer(f.residual_table), e.mul(p, f.residual_table_step))

        def vector(v: Value) -> None:
            offset = e.mul(v, e.isa.lanes * FLOAT)
            value = e.load(e.vector, e.at(sums, e.mul(row, TILE_CHANNELS * FLOAT), offset))
            bias = e.at(e.pointer(f.bias), left, offset)
            (value,) = emit_finish(e, 1, 1, f, [value], bias, e.at(residual, offset), table)
            e.store(value, e.at(y, offset))

        e.loop(0, vectors, vector)

    e.loop(0, e.least(e.whole(TILE_PIXELS), e.sub(f.pixels, first)), pixel)
