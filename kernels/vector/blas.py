"""Holds NumPy's BLAS to one thread while our own threads call it.

Not Apple's Accelerate, which NumPy's wheels for macOS 14 and later bring: threadpoolctl cannot. There
VECLIB_MAXIMUM_THREADS=1, in the environment before Python starts, does. Results are right either way.
"""

import os
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from functools import cache
from typing import Any

from threadpoolctl import ThreadpoolController


class _Users:
    """Nested and concurrent users share one limit: the first sets it, the last lifts it."""

    def __init__(self) -> None:
        self.lock = threading.Lock()
        self.count = 0
        self.limit: Any = None


_users = _Users()


def _before_fork() -> None:
    """Waits until nobody multiplies: OpenBLAS's own fork handler hangs while another thread is inside it."""
    while True:
        _users.lock.acquire()
        if _users.count == 0:
            return  # still holding the lock, so that nobody begins
        _users.lock.release()
        time.sleep(0.001)


# The child has a copy of the lock, held by a thread it does not have: it makes its own.
if hasattr(os, "register_at_fork"):
    os.register_at_fork(
        before=_before_fork,
        after_in_parent=_users.lock.release,
        after_in_child=_users.__init__,  # type: ignore[misc]
    )


@cache
def _controller() -> ThreadpoolController:
    return ThreadpoolController()


@contextmanager
def threaded(threads: int) -> Iterator[None]:
    """Inside, np.matmul uses so many threads of its own; while no other thread multiplies."""
    with _controller().limit(limits=threads, user_api="blas"):
        yield


@contextmanager
def single_threaded() -> Iterator[None]:
    """Inside, np.matmul runs on the thread that calls it (for the whole process: BLAS has one setting)."""
    with _users.lock:
        if _users.count == 0:
            _users.limit = _controller().limit(limits=1, user_api="blas")
        _users.count += 1
    try:
        yield
    finally:
        with _users.lock:
            _users.count -= 1
            if _users.count == 0:
                _users.limit.restore_original_limits()
