"""Tensor cores make the products, no longer the multipliers of float32: the production kernel in precision tf32x3.

One instruction of a warp multiplies 16 x 8 numbers of A by 8 x 8 of B: 1024 multiply-adds, where one of float32 makes
32. An A100 makes 8 times as many products a second in tf32 as in float32. But tf32 keeps 11 of float32's 24 bits. So
each number is split, on its way into shared memory, into the sum of two of tf32, big + small, which keeps 23 bits; and
of the four products all but small * small are made. Three products for one leave 8 / 3 of float32's speed, at nearly
its precision: a product errs by 2^-21 of itself at the most, and sums are of float32 as before.

Everything around the products is as on the last rung: the same gathering, the same two buffers, the same splits of k
and the same epilogue. `conv2d/tensor_cores.cu` has the kernel, `conv2d/tensor_cores.md` the arithmetic, and how words
lie in shared memory. The device needs tensor cores that know tf32: sm_80 or later.
"""

from resnet_ref.kernels.arrays import Array
from resnet_ref.kernels.conv2d.ladder.gpu.common import production
from resnet_ref.kernels.conv2d.ladder.problem import Problem
from resnet_ref.kernels.conv2d.tiles import TF32X3
from resnet_ref.kernels.cuda.runtime import Runtime


def convolve(problem: Problem, y: Array, runtime: Runtime) -> None:
    """y = the convolution, of the device's arrays."""
    production(TF32X3, problem, y, runtime)
