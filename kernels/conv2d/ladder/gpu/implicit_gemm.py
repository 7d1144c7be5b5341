"""The im2col matrix is gathered on the way and never made: this is the production kernel, `conv2d/gpu.cu` in float32.

Four things changed, each against something that the last rung leaves waiting.

- A thread that fetches a number of the matrix works out where it lies in x and takes it there. A 3x3 convolution with
  stride 1 need not write and read 9 times as many numbers as x has, nor have memory for them.
- Numbers are fetched in fours where C and F are divisible by 4. In a tile of 128 x 64 a thread fetches 12 numbers a
  step with 3 instructions, not 12. The matrix's tile lies in shared memory with k first, so that a thread also reads
  from there in fours: 32 reads for 512 multiply-adds instead of 80.
- Shared memory has two buffers. Before a step is multiplied the loads of the next one are begun, and have its 512
  multiply-adds a thread to arrive in; and one barrier a step is enough, where there were two.
- k can be split. One image's 7 x 7 pixels and 512 filters are 8 blocks of 128 x 64, for 132 multiprocessors of an
  H100. In 16 splits they are 128 blocks; each sums a part of k, and `reduce.cu` adds the parts. `conv2d/tiles.py`
  chooses tile and splits for each shape.

What stays: a multiprocessor has 128 multipliers for float32, and no more can be got out of it than these do.
"""

from resnet_ref.kernels.arrays import Array
from resnet_ref.kernels.conv2d.ladder.gpu.common import production
from resnet_ref.kernels.conv2d.ladder.problem import Problem
from resnet_ref.kernels.conv2d.tiles import FLOAT32
from resnet_ref.kernels.cuda.runtime import Runtime


def convolve(problem: Problem, y: Array, runtime: Runtime) -> None:
    """y = the convolution, of the device's arrays."""
    production(FLOAT32, problem, y, runtime)
