"""Fewer products: a 3x3 kernel of stride 1 takes 16 instead of 36 for four outputs, by Winograd's algorithm.

So far every product of the definition was made, only faster. F(2x2, 3x3) transforms 4x4 inputs and the kernel, such
that the products of the two, transformed back, are 2x2 outputs: 2.25 times fewer products, paid with additions. The 16
components are matrix products, done by the same register tile. The transforms move every number through the cache for
a few additions, which pays if it is then multiplied with many filters. F(2x2) needs only whole numbers and halves, and
is as exact as the definition; F(4x4), which errs more, is left to `algorithm="fast"`. What is infinite or NaN spreads
over the four outputs of a tile, and infinity becomes NaN in it: it is added with either sign.

A model of the costs decides (`kernels/conv2d/choice.py`), and where a kernel is not 3x3 of stride 1, or transforms
would cost more than they save, it is the rung before again. That is production: what a plan runs for each layer.
"""

from resnet_ref.kernels.conv2d.choice import Way, by_model
from resnet_ref.kernels.conv2d.ladder.planned import Alone
from resnet_ref.kernels.conv2d.ladder.problem import Prepared, Problem


def prepare(problem: Problem, threads: int) -> Prepared:
    """The plan's own choice, as `algorithm="auto"` makes it."""
    alone = Alone(problem, by_model(Way()), threads)
    return Prepared(alone.program.run, alone.result)
