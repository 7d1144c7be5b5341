"""A block fetches tiles of both factors into shared memory, and uses what it fetched 32 times, no longer once.

The convolution is made a product of matrices: im2col writes out the K = KH * KW * C numbers that each of M = N * OH *
OW pixels reads, and this matrix [M, K] is multiplied by the weights [K, F]. A block of 32 x 32 threads computes 32 x
32 numbers of y. For 32 steps along k a thread fetches one number of each factor, and then finds the other 62 that it
needs where its neighbours have put them: 2 loads from global memory for 32 multiply-adds, where there were 64. A
number of the matrix is loaded F / 32 times instead of F times, a weight M / 32 times instead of M times, and a warp
still loads 32 neighbours, in 4 sectors.

What it costs: for a 3x3 window with stride 1 the matrix is 9 times as large as x, and is written and read again. What
stays: each multiply-add takes two numbers from shared memory. Compiled for sm_90, 32 of them take 40 reads, the
compiler reading four neighbours of the matrix's tile at once. A multiprocessor does one such read for a warp in a
cycle at the most, but multiplies for 4 warps: at the best it reaches 32 / (4 * 40), a fifth, of its speed.
"""

from resnet_ref.kernels.arrays import Array
from resnet_ref.kernels.conv2d.ladder.gpu.common import product
from resnet_ref.kernels.conv2d.ladder.problem import Problem
from resnet_ref.kernels.cuda.launch import source
from resnet_ref.kernels.cuda.runtime import Runtime

TILE = 32
SOURCE = source("conv2d/ladder/gpu/shared_tiles.cu", TILE=TILE)


def convolve(problem: Problem, y: Array, runtime: Runtime) -> None:
    """y = the convolution, of the device's arrays."""
    product(SOURCE, "conv_shared_tiles", (TILE, TILE), TILE * TILE, problem, y, runtime)
