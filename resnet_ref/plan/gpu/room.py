"""What is said where a plan does not fit in a device's memory."""

from resnet_ref.errors import DeviceError


class NoRoom(DeviceError):
    """needed: of something of which there is only `room`."""

    def __init__(self, what: str, needed: int, room: int) -> None:
        super().__init__(f"{what}: {needed} are needed, {room} are there; give fewer images or end points at a time")
        self.needed, self.room = needed, room

    def fewer(self, images: int) -> int:
        """How many images may fit where `images`, which are several, do not."""
        return max(1, min(images - 1, images * self.room // self.needed))
