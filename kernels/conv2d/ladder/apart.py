"""The epilogue as passes of their own over y, one after the other: what rungs do that do not fuse it."""

import numpy as np

from resnet_ref.kernels.activation import bounds
from resnet_ref.kernels.arrays import Array
from resnet_ref.kernels.conv2d.ladder.problem import Problem
from resnet_ref.kernels.vector.compiled import compiled
from resnet_ref.kernels.vector.executor import ranges, run

PIECE = 256  # pixels of a task


def finish(problem: Problem, y: Array, threads: int) -> None:
    """y [N*OH*OW, F or more], which holds the sums, read and written again for each part that the epilogue has."""
    pieces = ranges(len(y), PIECE)
    _, oh, ow, f = problem.shape
    bias, residual, stride = problem.bias, problem.residual, problem.residual_stride
    if bias is not None:
        run(lambda piece: _add_bias(y, *pieces[piece], bias), len(pieces), threads)
    if residual is not None:
        run(lambda piece: _add_residual(y, *pieces[piece], residual, stride, oh, ow), len(pieces), threads)
    if problem.activation is not None:
        low, high = (np.float32(bound) for bound in bounds(problem.activation))
        run(lambda piece: _clamp(y, *pieces[piece], f, low, high), len(pieces), threads)


@compiled
def _add_bias(y, first, last, bias):
    for p in range(first, last):
        for f in range(len(bias)):
            y[p, f] += bias[f]


@compiled
def _add_residual(y, first, last, residual, stride, oh, ow):
    for p in range(first, last):
        pixel = residual[p // (oh * ow), p // ow % oh * stride, p % ow * stride]
        for f in range(len(pixel)):
            y[p, f] += pixel[f]


@compiled
def _clamp(y, first, last, features, low, high):
    for p in range(first, last):
        for f in range(features):
            v = y[p, f]
            y[p, f] = low if v < low else high if v > high else v
