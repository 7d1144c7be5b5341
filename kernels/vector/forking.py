"""Forks: a child has a copy of every lock, but of the threads that would open it only the one that forked."""

import os
from threading import RLock
from typing import Any


def hold_over_forks(lock: Any) -> None:
    """From now on a fork waits until this lock is open, and the child finds it open. It must be reentrant."""
    if hasattr(os, "register_at_fork"):
        os.register_at_fork(before=lock.acquire, after_in_parent=lock.release, after_in_child=lock.release)


def new_lock() -> RLock:
    """A lock that is held over forks."""
    lock = RLock()
    hold_over_forks(lock)
    return lock
