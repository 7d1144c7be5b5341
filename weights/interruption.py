"""Keeps Ctrl-C, and a request to terminate, waiting while a library works that does not survive an exception."""

import signal
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

_SIGNALS = (signal.SIGINT, signal.SIGTERM)


@contextmanager
def uninterrupted() -> Iterator[None]:
    """What a signal's handler raises is raised at the end of the block. To be kept short.

    Python runs handlers in the main thread, between any two steps: also in a callback that HDF5 made into Python, where
    an exception ends the process or is lost.
    """
    if threading.current_thread() is not threading.main_thread():
        yield
        return
    noted: list[tuple[Any, Any]] = []
    handlers = {number: handler for number in _SIGNALS if callable(handler := signal.getsignal(number))}
    for number in handlers:
        signal.signal(number, lambda *signalled: noted.append(signalled))
    try:
        yield
    finally:
        for number, handler in handlers.items():
            signal.signal(number, handler)
        if noted:
            handlers[noted[0][0]](*noted[0])
