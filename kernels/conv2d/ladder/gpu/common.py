"""What the launchers of several rungs have in common."""

from typing import Any

from resnet_ref.kernels.arrays import Array
from resnet_ref.kernels.conv2d.gpu import Epilogue, conv2d, im2col, taps
from resnet_ref.kernels.conv2d.ladder.problem import Problem
from resnet_ref.kernels.cuda.launch import BLOCK, Launch, Source, int32
from resnet_ref.kernels.cuda.runtime import Runtime


def for_each_output(compiled: Source, kernel: str, problem: Problem, y: Array, runtime: Runtime) -> None:
    """Launch a thread for every number of y [N, OH, OW, F]."""
    x, w, rows, cols, *_ = problem
    ends = epilogue(problem)
    grid = (-(-y.size // BLOCK), 1, 1)
    int32(grid[0] * BLOCK)  # threads number outputs with int, those behind the last too
    sizes = int32(*x.shape, *y.shape[1:], *taps(rows, cols))
    runtime.launch(Launch(compiled, kernel, grid, BLOCK, (x, w, ends.bias, ends.residual, y, *sizes, *ends.numbers)))


def product(
    compiled: Source, kernel: str, tile: tuple[int, int], threads: int, problem: Problem, y: Array, runtime: Runtime
) -> None:
    """Make the im2col matrix, then launch its product with the weights: a block for every `tile` of y [M, F]."""
    x, w, rows, cols, *_ = problem
    ends = epilogue(problem)
    matrix = im2col(x, rows, cols, runtime=runtime)
    m, depth = matrix.shape
    oh, ow, f = y.shape[1:]
    grid = (-(-m // tile[0]), -(-f // tile[1]), 1)
    int32(grid[0] * tile[0])  # threads number pixels with int, those behind the last too
    arguments = (matrix, w, ends.bias, ends.residual, y, *int32(m, depth, f, oh, ow), *ends.numbers)
    runtime.launch(Launch(compiled, kernel, grid, threads, arguments))


def production(precision: str, problem: Problem, y: Array, runtime: Runtime) -> None:
    """What the gpu's tier runs."""
    arguments: dict[str, Any] = problem._asdict()
    conv2d(**arguments, out=y, runtime=runtime, precision=precision)


def epilogue(problem: Problem) -> Epilogue:
    """The problem's, as launchers take it."""
    return Epilogue(problem.bias, problem.residual, problem.residual_stride, problem.activation)
