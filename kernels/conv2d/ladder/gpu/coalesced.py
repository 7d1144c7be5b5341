"""Neighbouring threads compute neighbouring filters of one pixel, and no longer one filter of neighbouring pixels.

One line of the kernel changed, the one that makes a pixel and a filter of a thread's number. x, the weights and y all
have their channels last, so that neighbouring filters lie side by side. If F is divisible by 32, a warp now loads 32
neighbouring weights, 128 bytes in 4 sectors; of x all its threads want the same number, in one sector. That is 5
sectors for 32 multiply-adds instead of 33. y is written in 4 sectors instead of 32. Accesses that fall together like
this are called coalesced.

What stays: each multiply-add loads two numbers and uses them once. With K = KH * KW * C products in each output, each
weight is loaded N * OH * OW times, and each number of a pixel's window F times.
"""

from resnet_ref.kernels.arrays import Array
from resnet_ref.kernels.conv2d.ladder.gpu.common import for_each_output
from resnet_ref.kernels.conv2d.ladder.problem import Problem
from resnet_ref.kernels.cuda.launch import source
from resnet_ref.kernels.cuda.runtime import Runtime

SOURCE = source("conv2d/ladder/gpu/coalesced.cu")


def convolve(problem: Problem, y: Array, runtime: Runtime) -> None:
    """y = the convolution, of the device's arrays."""
    for_each_output(SOURCE, "conv_coalesced", problem, y, runtime)
