"""What must hold of a reader whatever it is given: its own errors, a bounded memory, an end."""

import signal
import tracemalloc
from collections.abc import Callable
from types import FrameType
from typing import NoReturn

from resnet_ref.errors import ResnetRefError

Target = Callable[[bytes], None]

MOST_SECONDS = 100
MOST_BYTES = 64 << 20  # for inputs of some KiB


class TooSlow(BaseException):
    """A reader did not end. (No Exception, so that nobody on the way up swallows it.)"""


def ours(read: Callable[[], None]) -> None:
    """Call `read`; an error of the project's own, in one line, is as good as none."""
    said = ""
    try:
        read()
    except ResnetRefError as error:
        said = str(error)
    assert "\n" not in said, said


def guarded(one: Target, data: bytes) -> None:
    """Call one(data) within MOST_SECONDS and MOST_BYTES of what Python and NumPy allocate."""

    def stop(number: int, frame: FrameType | None) -> NoReturn:
        raise TooSlow(f"no end within {MOST_SECONDS} s")

    before = signal.signal(signal.SIGALRM, stop)
    signal.setitimer(signal.ITIMER_REAL, MOST_SECONDS)
    tracemalloc.start()
    try:
        one(data)
        peak = tracemalloc.get_traced_memory()[1]
    finally:
        tracemalloc.stop()
        signal.setitimer(signal.ITIMER_REAL, 0)
        signal.signal(signal.SIGALRM, before)
    assert peak < MOST_BYTES, f"{peak} bytes of memory for {len(data)} bytes of input"
