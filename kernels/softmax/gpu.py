"""Launches softmax: a block for each row."""

import numpy as np

from resnet_ref.kernels.arrays import Array
from resnet_ref.kernels.cuda.launch import BLOCK, Launch, int32, source
from resnet_ref.kernels.cuda.runtime import Runtime

SOURCE = source("softmax/gpu.cu", THREADS=BLOCK)


def softmax(x: Array, *, runtime: Runtime) -> Array:
    """exp(x) / sum(exp(x)) over the last axis of x [..., classes]."""
    y = runtime.empty(x.shape, np.float32)
    softmax_into(runtime, x, y)
    return y


def softmax_into(runtime: Runtime, x: Array, y: Array) -> None:
    """y = softmax(x), of one shape."""
    classes = x.shape[-1]
    runtime.launch(Launch(SOURCE, "softmax", (x.size // classes, 1, 1), BLOCK, (x, *int32(classes), y)))
