"""Launches convolutions on a gpu: which file, tile and grid, and where the sums of a split go."""

import math
from typing import NamedTuple

import numpy as np

from resnet_ref.errors import DeviceError
from resnet_ref.kernels.activation import bounds
from resnet_ref.kernels.arrays import Array
from resnet_ref.kernels.conv2d.tiles import FLOAT32, PRECISIONS, Way, candidates, k_per_split
from resnet_ref.kernels.cuda.launch import BLOCK, Launch, Source, blocks_for, float32, int32, source
from resnet_ref.kernels.cuda.runtime import Runtime
from resnet_ref.kernels.geometry import Window

IM2COL = source("conv2d/im2col.cu")
TENSOR_CORES = 80  # the architecture from which on they know these precisions
REDUCE = source("conv2d/reduce.cu")


class Epilogue(NamedTuple):
    """activation(clip(sum + bias, -bound, bound) + residual[:, ::s, ::s]): what follows the products."""

    bias: Array | None = None
    residual: Array | None = None
    residual_stride: int = 1
    activation: str | None = None
    bound: float = math.inf

    @property
    def numbers(self) -> tuple[np.generic, ...]:
        """EPILOGUE_PARAMETERS of epilogue.cuh."""
        rows, columns = (0, 0) if self.residual is None else self.residual.shape[1:3]
        return (*int32(rows, columns, self.residual_stride), *float32(self.bound, *bounds(self.activation)))


NOTHING = Epilogue()


def im2col(x: Array, rows: Window, cols: Window, *, runtime: Runtime) -> Array:
    """[N, H, W, C] -> [N*OH*OW, KH*KW*C]: row (n, oy, ox) holds the taps of that output, in HWI order."""
    oh, ow = rows.out(x.shape[1]), cols.out(x.shape[2])
    matrix = runtime.empty((x.shape[0] * oh * ow, rows.size * cols.size * x.shape[3]), np.float32)
    grid = blocks_for(matrix.size, runtime.multiprocessors)
    sizes = int32(*x.shape, oh, ow, *taps(rows, cols))
    runtime.launch(Launch(IM2COL, "im2col", grid, BLOCK, (x, matrix, *sizes)))
    return matrix


def conv2d(
    x: Array,
    w: Array,
    rows: Window,
    cols: Window,
    *,
    bias: Array | None = None,
    residual: Array | None = None,
    residual_stride: int = 1,
    activation: str | None = None,
    out: Array | None = None,
    runtime: Runtime,
    precision: str = FLOAT32,
) -> Array:
    """activation(conv(x, w) + bias + residual[:, ::s, ::s]); x [N, H, W, C], w [KH, KW, C, F] -> [N, OH, OW, F].

    precision: of the products; one of tiles.PRECISIONS. DeviceError for one that the device does not have.
    """
    require_precision(runtime, precision)
    shape = (x.shape[0], rows.out(x.shape[1]), cols.out(x.shape[2]), w.shape[3])
    y = runtime.empty(shape, np.float32) if out is None else out
    if y.size:
        way = ways(runtime, x.shape, w.shape, rows, cols, precision)[0]
        needed = workspace_size(way, y.size // shape[3], shape[3])
        workspace = runtime.empty((needed,), np.float32) if needed else None
        epilogue = Epilogue(bias, residual, residual_stride, activation)
        conv2d_into(runtime, x, w, rows, cols, epilogue, y, way, workspace)
    return y


def has_precision(runtime: Runtime, precision: str) -> bool:
    """Whether the device has the cores for one of tiles.PRECISIONS."""
    return precision == FLOAT32 or int(runtime.architecture.removeprefix("sm_")) >= TENSOR_CORES


def require_precision(runtime: Runtime, precision: str) -> None:
    """DeviceError where there is no such precision, or the device has not the tensor cores for it."""
    if precision not in PRECISIONS:
        raise DeviceError(f'on device "gpu" precision must be one of {", ".join(PRECISIONS)}; got {precision!r}')
    if not has_precision(runtime, precision):
        raise DeviceError(f"{runtime} is {runtime.architecture}; precision {precision!r} needs sm_{TENSOR_CORES}")


def ways(
    runtime: Runtime,
    x_shape: tuple[int, ...],
    w_shape: tuple[int, ...],
    rows: Window,
    cols: Window,
    precision: str = FLOAT32,
) -> list[Way]:
    """How this convolution can be computed, the way that the model thinks fastest first."""
    pixels = x_shape[0] * rows.out(x_shape[1]) * cols.out(x_shape[2])
    return list(candidates(pixels, w_shape[3], math.prod(w_shape[:3]), runtime.multiprocessors, precision))


def workspace_size(way: Way, m: int, n: int) -> int:
    """How many numbers of float32 a way needs beside the [m, n] = [N*OH*OW, F] that it computes."""
    return way.splits * m * n if way.splits > 1 else 0


def conv2d_into(
    runtime: Runtime,
    x: Array,
    w: Array,
    rows: Window,
    cols: Window,
    epilogue: Epilogue,
    y: Array,
    way: Way,
    workspace: Array | None,
) -> None:
    """y [N, OH, OW, F] = the convolution. workspace: of `workspace_size` numbers at least, or None where it is 0."""
    n, oh, ow, f = y.shape
    is_split = way.splits > 1
    sums, during = (workspace, NOTHING) if is_split else (y, epilogue)
    tile, depth = way.tile, math.prod(w.shape[:3])
    grid = (-(-n * oh * ow // tile.bm), -(-f // tile.bn), way.splits)
    int32(grid[0] * tile.bm)  # threads number pixels with int, those behind the last too
    sizes = int32(*x.shape, oh, ow, f, *taps(rows, cols), k_per_split(way, depth))
    arguments = (x, w, during.bias, during.residual, sums, *sizes, *during.numbers)
    compiled = source_of(way, x.shape[3], f, rows, cols)
    kernel = "conv_float32" if way.precision == FLOAT32 else "conv_tensor_core"
    runtime.launch(Launch(compiled, kernel, grid, tile.threads, arguments))
    if is_split:
        arguments = (sums, *int32(way.splits), epilogue.bias, epilogue.residual, y, *int32(y.size, oh, ow, f))
        grid = blocks_for(y.size, runtime.multiprocessors)
        runtime.launch(Launch(REDUCE, "reduce", grid, BLOCK, (*arguments, *epilogue.numbers)))


def source_of(way: Way, c: int, f: int, rows: Window, cols: Window) -> Source:
    """The file and its defines, for C and F channels under these windows."""
    tile = way.tile
    is_point = all(axis.size == 1 and axis.before == axis.after == 0 for axis in (rows, cols))
    defines = {"KVEC": int(c % 4 == 0), "NVEC": int(f % 4 == 0), "POINT": int(is_point)}
    defines |= {"BM": tile.bm, "BN": tile.bn, "BK": tile.bk}
    # Loads one by one take registers, which only fewer blocks leave.
    defines["MIN_BLOCKS"] = tile.blocks if c % 4 == f % 4 == 0 else 1
    if way.precision == FLOAT32:
        return source("conv2d/gpu.cu", **defines, TM=tile.tm, TN=tile.tn)
    return source("conv2d/tensor_cores.cu", **defines, WM=tile.tm, WN=tile.tn, **{way.precision.upper(): 1})


def taps(rows: Window, cols: Window) -> tuple[int, ...]:
    """kh, kw, then strides, rates and paddings before, as the kernels take them."""
    return (rows.size, cols.size, rows.stride, cols.stride, rows.rate, cols.rate, rows.before, cols.before)
