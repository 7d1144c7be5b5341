"""Streams that do nothing until something waits for them, so that a wait that is missing shows in the numbers."""

import threading
import weakref
from collections import deque
from collections.abc import Callable
from typing import Any

from resnet_ref.errors import DeviceError

from .compile import EmulatorError
from .memory import Allocation

Work = Callable[[], None]


class Current(threading.local):
    """What a thread of the host is about: the streams it has entered, and what it has captured, if it captures."""

    def __init__(self, default: "EmulatedStream") -> None:
        self.streams = [default]
        self.captured: list[tuple[Work, list[Reference]]] | None = None

    @property
    def stream(self) -> "EmulatedStream":
        return self.streams[-1]

    def refuse_capture(self, what: str) -> None:
        """What cannot be in a graph."""
        if self.captured is not None:
            raise DeviceError(f"{what} is not permitted while launches are captured")


class EmulatedStream:
    """Work in order; it runs when someone waits for it. The default stream, outside of all others, runs it at once."""

    def __init__(self, current: Current | None, lock: Any, is_default: bool = False) -> None:
        """current: set before anything else is done; lock: the device's, an RLock."""
        self.current = current
        self._lock = lock
        self._is_default = is_default
        self._queue: deque[Work] = deque()
        self._added = self._done = 0

    def __enter__(self) -> "EmulatedStream":
        self.current.streams.append(self)
        return self

    def __exit__(self, *_: object) -> None:
        assert self.current.streams.pop() is self

    def add(self, work: Work) -> None:
        with self._lock:
            self._queue.append(work)
            self._added += 1
            if self._is_default:
                self.run_until(self._added)

    def run_until(self, position: int) -> None:
        """Do the first `position` of all the work that was ever added. What follows a failure is given up."""
        with self._lock:
            while self._done < position:
                self._done += 1
                try:
                    self._queue.popleft()()
                except BaseException:
                    self._queue.clear()
                    self._done = self._added
                    raise

    def record(self) -> "EmulatedEvent":
        self.current.refuse_capture("recording an event")
        return EmulatedEvent(self, self._added)

    def wait(self, event: "EmulatedEvent") -> None:
        self.current.refuse_capture("waiting for an event")
        self.add(event.reach)

    def synchronize(self) -> None:
        self.current.refuse_capture("waiting for a stream")
        self.run_until(self._added)


class EmulatedEvent:
    """A point in a stream."""

    def __init__(self, stream: EmulatedStream, position: int) -> None:
        self._stream = stream
        self._position = position

    def reach(self) -> None:
        self._stream.run_until(self._position)

    def synchronize(self) -> None:
        self._stream.current.refuse_capture("waiting for an event")
        self.reach()


class Reference:
    """Work's hold on memory. A device gives memory back in the order of the stream it was made in, so that only there
    an array may die before the work is done; work of other streams, and graphs, do not keep it alive."""

    def __init__(self, allocation: Allocation, user: EmulatedStream | None) -> None:
        self._kept = allocation if allocation.stream is user else None
        self._weak = weakref.ref(allocation)

    def get(self) -> Allocation:
        """The memory, if it is still there."""
        allocation = self._weak()
        if allocation is None:
            raise EmulatorError("an array was freed before work that uses it ran")
        return allocation
