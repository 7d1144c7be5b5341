"""A device that only notes what it should launch, and arrays as far as launchers look at them."""

import math
from typing import NamedTuple

from resnet_ref.kernels.cuda.launch import Launch


class Shaped(NamedTuple):
    """An array."""

    shape: tuple[int, ...]

    @property
    def size(self) -> int:
        return math.prod(self.shape)


class Recorder:
    """A device."""

    architecture = "sm_90"

    def __init__(self, multiprocessors: int = 132) -> None:
        self.multiprocessors = multiprocessors
        self.launches: list[Launch] = []

    def empty(self, shape: tuple[int, ...], _: object) -> Shaped:
        return Shaped(shape)

    def launch(self, launch: Launch) -> None:
        self.launches.append(launch.check())
