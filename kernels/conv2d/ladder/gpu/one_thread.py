"""A thread computes one number of y, straight from the definition: nothing is kept, nothing is shared.

With N * OH * OW * F threads there is enough to do at once, and still it is slow, because of memory. A multiply-add
loads two numbers, one of x and one of the weights, and never uses them again. And the threads are numbered so that
loading is dear. The 32 threads of a warp load together, in sectors of 32 bytes, the least that memory hands out. Here
neighbours compute the same filter at neighbouring pixels. They share the weight, which is one sector; but their
numbers of x lie C numbers apart, so that from 8 channels on each lies in a sector of its own. That is 33 sectors, 1056
bytes, for 32 multiply-adds that need 132 bytes. y is written in the same way, 32 sectors for 32 numbers. What else is
in a sector of x are the channels that come next in the loop, so that a cache helps, as far as all threads' sectors fit
into it.
"""

from resnet_ref.kernels.arrays import Array
from resnet_ref.kernels.conv2d.ladder.gpu.common import for_each_output
from resnet_ref.kernels.conv2d.ladder.problem import Problem
from resnet_ref.kernels.cuda.launch import source
from resnet_ref.kernels.cuda.runtime import Runtime

SOURCE = source("conv2d/ladder/gpu/one_thread.cu")


def convolve(problem: Problem, y: Array, runtime: Runtime) -> None:
    """y = the convolution, of the device's arrays."""
    for_each_output(SOURCE, "conv_one_thread", problem, y, runtime)
