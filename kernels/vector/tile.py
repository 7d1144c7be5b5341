"""The register tile: the innermost loops of every convolution.

    y[rows, channels] = clamp(sum over taps and k of x[row's tap, k] * w[tap, k, channels] + bias + residual)

For AVX-512, 14 pixels by 32 channels, 28 of the 32 registers hold sums that never leave them. A step of k loads two
vectors of weights and then, pixel by pixel, puts one number of x in every lane and multiplies it into two sums:

                          w[k, 0:16]   w[k, 16:32]        2 registers, loaded once a step
                         +------------+------------+
    x[pixel 0, k]   ->   |   sum 0,0  |   sum 0,1  |      1 register, one pixel after the other
    x[pixel 1, k]   ->   |   sum 1,0  |   sum 1,1  |
        ...              |     ...    |     ...    |      28 registers
    x[pixel 13, k]  ->   |  sum 13,0  |  sum 13,1  |
                         +------------+------------+

16 loads feed 28 multiply-adds, so arithmetic is what limits, not memory. Weights lie as [panel][tap][k][channels of a
panel], in the order in which they are read. Where a multiply-add may take one lane of a vector as a factor (NEON), a
pixel's next numbers are loaded as a vector, for as many steps of k.

Where a pixel's tap lies is looked up in a table (indirection: M. Dukhan, The Indirect Convolution Algorithm,
arXiv:1907.02129), once a tap: kernel size, stride, rate, padding and images' borders are the table's business, and one
kernel of each height serves every convolution there is. Padding is a row of zeros.
"""

from types import SimpleNamespace

from resnet_ref.kernels.vector.emit import F32, FLOAT, LINE, POINTER, Emitter, Layout, Value

# What a tile call needs besides where it works; the same for all tiles of an operation.
# taps, depth: how much is summed. tap_step: bytes from a tap's entries in the table to the next's. y_step: bytes from a
# pixel of y to the next. has_residual, has_bounds: 0 or 1.
# low, high: the clamp, its upper bound and the residual's (bound) only where has_bounds.
TILE = Layout("taps", "depth", "tap_step", "y_step", "has_residual", "has_bounds", "low", "high", "bound")
# Products added one after the other; then the sum is put aside and added to the others at the end, since the error of a
# float32 sum grows with its length. (Equal parts of a long depth count as taps.)
LONGEST_SUM = 512
# The record above; x and its table; w, bias at the panel; y, residual at the tile's first pixel and channel, and the
# residual's table; what will be read next, for a prefetch.
ARGUMENTS = [POINTER] * 9


def tile_name(rows: int, vectors: int) -> str:
    """The function's name."""
    return f"tile_{rows}x{vectors}"


def emit_tile(e: Emitter, rows: int, vectors: int) -> None:
    """A tile of `rows` pixels by `vectors` vectors of channels."""
    with e.function(tile_name(rows, vectors), ARGUMENTS) as arguments:
        common, base, table, w, y, bias, residual, residual_table, following = arguments
        f = e.record(common, TILE)
        # The residual is asked for now and needed when the sums are done.
        e.when(f.has_residual, [], lambda _: _fetch(e, rows, vectors, residual, residual_table))
        sums = _sum(e, rows, vectors, f, base, table, w, following)
        sums = emit_finish(e, rows, vectors, f, sums, bias, residual, residual_table)
        for row in range(rows):
            for v in range(vectors):
                e.store(sums[row * vectors + v], e.at(y, v * e.isa.lanes * FLOAT))
            y = e.at(y, f.y_step)


def _sum(
    e: Emitter, rows: int, vectors: int, f: SimpleNamespace, base: Value, table: Value, w: Value, following: Value
) -> list[Value]:
    """The sums of products, [rows * vectors]."""
    length = e.mul(f.depth, FLOAT)
    zeros = [e.constant(0.0)] * (rows * vectors)
    totals = e.local(rows * vectors)
    places = [e.at(totals, i * e.isa.lanes * FLOAT) for i in range(rows * vectors)]

    def add_totals(sums: list[Value]) -> list[Value]:
        return [e.block.fadd(value, e.load(e.vector, place)) for value, place in zip(sums, places, strict=True)]

    def put_aside(carried: list[Value]) -> list[Value]:
        _, aside, *sums = carried
        for value, place in zip(e.when(aside, sums, add_totals), places, strict=True):
            e.store(value, place)
        return [e.whole(0), e.whole(1), *zeros]

    def tap(number: Value, carried: list[Value]) -> list[Value]:
        table, w, following, since, aside, *sums = carried
        # Counting k up to zero from the pixels' ends leaves one number to count with.
        ends = [e.at(base, e.index(e.at(table, row * 4)), length) for row in range(rows)]

        carried = [e.sub(0, length), w, following, *sums]
        _, w, following, *sums = _products(e, rows, vectors, f.depth, ends, carried)
        since = e.add(since, f.depth)
        return [
            e.at(table, f.tap_step),
            w,
            following,
            *e.when(e.is_at_least(since, LONGEST_SUM), [since, aside, *sums], put_aside),
        ]

    _, _, _, _, aside, *sums = e.fold(f.taps, [table, w, following, e.whole(0), e.whole(0), *zeros], tap, "tap")
    return e.when(aside, sums, add_totals)


def _products(
    e: Emitter, rows: int, vectors: int, depth: Value, ends: list[Value], carried: list[Value]
) -> list[Value]:
    """The loop over k of one tap. ends: after each pixel's numbers. carried: k, w, following and the sums."""
    step, place = vectors * e.isa.lanes * FLOAT, e.isa.lanes * FLOAT

    def moved(numbers: int, k: Value, w: Value, following: Value, sums: list[Value]) -> list[Value]:
        # LLVM would give every pixel a counter of its own, and then has too few registers for the sums.
        k, w = e.opaque(e.add(k, FLOAT * numbers)), e.opaque(e.at(w, step * numbers))
        return [k, w, e.at(following, LINE * numbers), *sums]

    def one(_: Value, carried: list[Value]) -> list[Value]:
        k, w, following, *sums = carried
        weights = [e.load(e.vector, e.at(w, v * place), place) for v in range(vectors)]
        e.prefetch(following, 2)
        for row in range(rows):
            x = e.splat(e.load(F32, e.at(ends[row], k)))
            for v in range(vectors):
                sums[row * vectors + v] = e.multiply_add(x, weights[v], sums[row * vectors + v])
        return moved(1, k, w, following, sums)

    def as_many_as_lanes(_: Value, carried: list[Value]) -> list[Value]:
        """The pixels stay in registers, the weights go through: all pixels are done with a vector before the next."""
        k, w, following, *sums = carried
        pixels = [e.load(e.vector, e.at(end, k)) for end in ends]
        for lane in range(e.isa.lanes):
            e.prefetch(e.at(following, lane * LINE), 2)
            for v in range(vectors):
                weights = e.load(e.vector, e.at(w, lane * step + v * place), place)
                for row, pixel in enumerate(pixels):
                    i = row * vectors + v
                    sums[i] = e.multiply_add(e.splat_lane(pixel, lane), weights, sums[i])
        return moved(e.isa.lanes, k, w, following, sums)

    if not e.isa.by_lane:
        return e.fold(depth, carried, one, "k")
    times, rest = e.divmod(depth, e.isa.lanes)
    carried = e.when(times, carried, lambda carried: e.fold(times, carried, as_many_as_lanes, "k.lanes"))
    return e.when(rest, carried, lambda carried: e.fold(rest, carried, one, "k"))


def _fetch(e: Emitter, rows: int, vectors: int, residual: Value, residual_table: Value) -> list[Value]:
    for row in range(rows):
        start = e.at(residual, e.index(e.at(residual_table, row * 4)))
        for line in range(0, vectors * e.isa.lanes * FLOAT, LINE):
            e.prefetch(e.at(start, line), 3)
    return []


def emit_finish(
    e: Emitter,
    rows: int,
    vectors: int,
    f: SimpleNamespace,
    sums: list[Value],
    bias: Value,
    residual: Value,
    residual_table: Value,
) -> list[Value]:
    """clamp(sums + bias + residual), while all is still in registers."""
    low, high, bound = (e.splat_bits(bits) for bits in (f.low, f.high, f.bound))
    places = [v * e.isa.lanes * FLOAT for v in range(vectors)]
    biases = [e.load(e.vector, e.at(bias, place)) for place in places]
    sums = [e.block.fadd(value, biases[i % vectors]) for i, value in enumerate(sums)]

    def add(sums: list[Value]) -> list[Value]:
        sums = e.when(f.has_bounds, sums, lambda sums: [e.clamp(s, e.block.fneg(bound), bound) for s in sums])
        rows_of = [e.at(residual, e.index(e.at(residual_table, row * 4))) for row in range(rows)]
        pixels = [e.load(e.vector, e.at(start, place)) for start in rows_of for place in places]
        return [e.block.fadd(value, pixel) for value, pixel in zip(sums, pixels, strict=True)]

    sums = e.when(f.has_residual, sums, add)
    sums = [e.at_least(s, low) for s in sums]
    return e.when(f.has_bounds, sums, lambda sums: [e.at_most(s, high) for s in sums])
