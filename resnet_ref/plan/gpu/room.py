"""Memory of a device, and what is said where there is too little of it."""

from math import prod

import numpy as np

from resnet_ref.errors import DeviceError
from resnet_ref.kernels.arrays import Array
from resnet_ref.kernels.cuda.runtime import Runtime

FLOAT = 4
USABLE = 15 / 16  # of the memory that is free: the rest is for kernels' code and graphs


class NoRoomError(DeviceError):
    """needed: of something of which there is only `room`."""

    def __init__(self, what: str, needed: int, room: int) -> None:
        super().__init__(f"{what}: {needed} are needed, {room} are there; give fewer images or end points at a time")
        self.needed, self.room = needed, room

    def fewer(self, images: int) -> int:
        """How many images may fit where `images`, which are several, do not."""
        return max(1, min(images - 1, images * self.room // self.needed))


def allocated(runtime: Runtime, shape: tuple[int, ...]) -> Array:
    """A new array of float32; NoRoomError where the device has too little memory."""
    needed, free = FLOAT * prod(shape), runtime.free_bytes()
    if needed <= USABLE * free:
        try:
            return runtime.empty(shape, np.float32)
        except DeviceError:
            free = runtime.free_bytes()
    raise NoRoomError(f"{runtime}: too little memory, in bytes", needed, int(USABLE * free))
