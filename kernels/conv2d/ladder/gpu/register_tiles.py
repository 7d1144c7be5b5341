"""A thread computes 8 x 8 numbers of y in registers, no longer one, and uses 8 times what it reads from shared memory.

For each k a thread reads 8 numbers of the matrix and 8 weights, and makes all their 64 products: 16 numbers from
shared memory instead of 128. Compiled for sm_90, 512 multiply-adds of a warp take 80 reads, and shared memory no more
cycles for them than the 512 / 4 = 128 that the multipliers need: while a block multiplies, no memory holds it up any
longer.

Because a thread does more, a block of 128 threads is enough for 128 x 64 numbers of y. A number of the matrix is
loaded from global memory F / 64 times and a weight M / 128 times, half and a quarter of what it was. In numbers for
one multiply-add: two on the second rung, 1/16 on the third, (128 + 64) / (128 * 64) = 1/43 here.

What stays: the matrix is written and read again, number by number. And nobody in a block multiplies while its tiles
are on their way, which takes hundreds of cycles at every 8th k; all that can fill them is another block of the same
multiprocessor, whose registers have room for 4.
"""

from resnet_ref.kernels.arrays import Array
from resnet_ref.kernels.conv2d.ladder.gpu.common import product
from resnet_ref.kernels.conv2d.ladder.problem import Problem
from resnet_ref.kernels.cuda.launch import source
from resnet_ref.kernels.cuda.runtime import Runtime

BM, BN, BK = 128, 64, 8  # of a block, and its steps
TM, TN = 8, 8  # of a thread
SOURCE = source("conv2d/ladder/gpu/register_tiles.cu", BM=BM, BN=BN, BK=BK, TM=TM, TN=TN)


def convolve(problem: Problem, y: Array, runtime: Runtime) -> None:
    """y = the convolution, of the device's arrays."""
    product(SOURCE, "conv_register_tiles", (BM, BN), BM // TM * (BN // TN), problem, y, runtime)
