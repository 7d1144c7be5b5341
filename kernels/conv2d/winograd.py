"""Winograd convolution for 3x3 kernels of stride 1, any rate, padding and size: fewer products, more sums.

    x --B^T d B--> V [n*n, tiles, C]  @  U [n*n, C, F]  -->  M [n*n, tiles, F] --A^T M A--> y

Each of the n*n components is a matrix product of its own (multiply.py). m = 2 takes 2.25 times fewer products than the
definition and is as exact; m = 4 takes 4 times fewer and loses some digits. A tile is m x m outputs, `rate` apart;
where its inputs and outputs lie is looked up in tables, so that rate, padding and borders need no code.

Where there are tiles enough, a task does all three stages for a few of them, whose V and M stay in the core's cache
(fused); where weights are what is large, all tiles go through each stage together (staged).
"""

from collections.abc import Callable, Sequence
from types import SimpleNamespace

import numpy as np

from resnet_ref.kernels.conv2d.winograd_matrices import TAPS, Matrix, matrices
from resnet_ref.kernels.vector import sharing
from resnet_ref.kernels.vector.emit import I64, Emitter, Layout, Value
from resnet_ref.kernels.vector.program import HEADER, OPERATION

# in_scratch: v is relative to the thread's scratch and to the task's first tile.
_TILES = (*sharing.FIELDS, "in_scratch")
INPUT = Layout(*HEADER.names, *_TILES, "x", "table", "v", "v_step", "v_group")
OUTPUT = Layout(*HEADER.names, *_TILES, "y", "table", "v", "v_step", "v_group", "bias", "low", "high")
# The stages' functions and records; the product's for a task of one more tile, and for the others.
FUSED = Layout(
    *HEADER.names, "taller", "groups", "input", "input_record", "multiply", "tall", "short", "output", "output_record"
)
SIZES = (2, 4)


def emit_winograd(e: Emitter) -> None:
    """winograd_input_m, winograd_output_m for each m, and winograd_fused; all (record, task, scratch)."""
    for m in SIZES:
        _emit_input(e, m)
        _emit_output(e, m)
    with e.function("winograd_fused", OPERATION) as (record, task, scratch):
        f = e.record(record, FUSED)
        e.call_address(f.input, OPERATION, [e.pointer(f.input_record), task, scratch])
        product = e.pointer(e.block.select(e.block.icmp_signed("<", task, f.taller), f.tall, f.short))
        e.loop(0, f.groups, lambda group: e.call_address(f.multiply, OPERATION, [product, group, scratch]))
        e.call_address(f.output, OPERATION, [e.pointer(f.output_record), task, scratch])


def _each_tile(
    e: Emitter, f: SimpleNamespace, task: Value, scratch: Value, body: Callable[[Value, Value], None]
) -> None:
    """body(tile, its v) for the task's tiles."""
    first, last = sharing.share(e, f, task)
    own = e.sub(e.block.ptrtoint(scratch, I64), e.mul(first, f.v_step))
    v = e.pointer(e.add(f.v, e.mul(f.in_scratch, own)))
    e.loop(first, last, lambda tile: body(tile, e.at(v, e.mul(tile, f.v_step))))


def _emit_input(e: Emitter, m: int) -> None:
    n = m + TAPS - 1
    with e.function(f"winograd_input_{m}", OPERATION) as (record, task, scratch):
        f = e.record(record, INPUT)
        x = e.pointer(f.x)

        def tile(number: Value, v: Value) -> None:
            entries = e.at(e.pointer(f.table), e.mul(number, n * n * 4))
            places = [e.at(x, e.index(e.at(entries, i * 4))) for i in range(n * n)]

            def vector(offset: Value) -> None:
                d = [e.load(e.vector, e.at(place, offset)) for place in places]
                columns = [transform_input(e, matrices(m)[2], d[j::n]) for j in range(n)]  # [j][i]
                target = e.at(v, offset)
                for i in range(n):
                    for value in transform_input(e, matrices(m)[2], [columns[j][i] for j in range(n)]):
                        e.store(value, target)
                        target = e.at(target, f.v_group)

            e.each_vector(f.v_step, vector)

        _each_tile(e, f, task, scratch, tile)


def _emit_output(e: Emitter, m: int) -> None:
    n = m + TAPS - 1
    with e.function(f"winograd_output_{m}", OPERATION) as (record, task, scratch):
        f = e.record(record, OUTPUT)
        low, high = e.splat_bits(f.low), e.splat_bits(f.high)
        y = e.pointer(f.y)

        def tile(number: Value, v: Value) -> None:
            entries = e.at(e.pointer(f.table), e.mul(number, m * m * 4))
            places = [e.at(y, e.index(e.at(entries, i * 4))) for i in range(m * m)]

            def vector(offset: Value) -> None:
                source, rows = e.at(v, offset), []
                for _ in range(n):
                    row = []
                    for _ in range(n):
                        row.append(e.load(e.vector, source))
                        source = e.at(source, f.v_group)
                    rows.append(transform_output(e, matrices(m)[0], row))  # [i][n -> m]
                bias = e.load(e.vector, e.at(e.pointer(f.bias), offset))
                for j in range(m):
                    for i, value in enumerate(transform_output(e, matrices(m)[0], [rows[k][j] for k in range(n)])):
                        value = e.at_least(e.block.fadd(value, bias), low)
                        e.store(e.at_most(value, high), e.at(places[i * m + j], offset))

            e.each_vector(f.v_step, vector)

        _each_tile(e, f, task, scratch, tile)


def transform_input(e: Emitter, matrix: Matrix, x: list[Value]) -> list[Value]:
    """matrix @ x, where the rows of the points p and -p have the same even terms and opposite odd ones."""
    results: list[Value] = []
    even = odd = None
    for i, row in enumerate(matrix):
        if i and np.array_equal(row, _mirrored(matrix[i - 1])) and not np.array_equal(row, matrix[i - 1]):
            results.append(e.block.fsub(even, odd))
        else:
            even, odd = (_combination(e, row[half::2], x[half::2]) for half in (0, 1))
            results.append(even if odd is None else odd if even is None else e.block.fadd(even, odd))
    return results


def transform_output(e: Emitter, matrix: Matrix, x: list[Value]) -> list[Value]:
    """matrix @ x, where the columns of the points p and -p are equal in even rows and opposite in odd ones."""
    rows: list[list[tuple[float, Value]]] = [[] for _ in matrix]
    j = 0
    while j < len(x):
        column, following = matrix[:, j], matrix[:, min(j + 1, len(x) - 1)]
        if column.all() and np.array_equal(following, _mirrored(column)):
            both = (e.block.fadd(x[j], x[j + 1]), e.block.fsub(x[j], x[j + 1]))
            j += 1
        else:
            both = (x[j], x[j])
        for i, row in enumerate(rows):
            row.append((column[i], both[i % 2]))
        j += 1
    return [_combination(e, *zip(*row, strict=True)) for row in rows]


def _mirrored(row: Matrix) -> Matrix:
    return row * (-1.0) ** np.arange(len(row))


def _combination(e: Emitter, coefficients: Sequence[float], x: Sequence[Value]) -> Value | None:
    """sum of coefficients * x, terms with 1 and -1 first, since they need no product; None where all are 0."""
    terms = [(float(c), value) for c, value in zip(coefficients, x, strict=True) if c]
    if not terms:
        return None
    (first, total), *rest = sorted(terms, key=lambda term: (abs(term[0]) != 1, term[0] != 1))
    if first != 1:
        total = e.block.fneg(total) if first == -1 else e.block.fmul(total, e.constant(first))
    for c, value in rest:
        if c == 1:
            total = e.block.fadd(total, value)
        elif c == -1:
            total = e.block.fsub(total, value)
        else:
            total = e.multiply_add(e.constant(c), value, total)
    return total
