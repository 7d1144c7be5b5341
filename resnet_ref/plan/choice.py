"""Which algorithm computes a convolution."""

import os
from collections.abc import Sequence

from resnet_ref.kernels.conv2d.planned import Convolution, can_winograd, direct, winograd
from resnet_ref.kernels.vector.step import Step, Target


CFG = eval(os.environ.get("CFG", "{}"))

def only_direct(target: Target, conv: Convolution) -> Sequence[Step]:
    return direct(target, conv)

def auto(target: Target, conv: Convolution) -> Sequence[Step]:
    how = CFG.get(conv.x.c, "d")
    if not can_winograd(conv) or how == "d":
        return direct(target, conv)
    m, most = how
    return winograd(target, conv, m, most)
