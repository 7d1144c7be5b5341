"""NumPy's BLAS as our kernels call it: on as many threads as they say, and so that a fork may come at any time."""

import os
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from functools import cache
from typing import Any

import numpy as np
from threadpoolctl import ThreadpoolController

from resnet_ref.kernels.arrays import Array


class _Limit:
    """Nested and concurrent users share one limit: the first sets it, the last lifts it."""

    def __init__(self) -> None:
        self.lock = threading.RLock()
        self.users = 0
        self.found: Any = None  # what was there before the first


class _Gate:
    """Holds a fork back until no thread multiplies, and holds products back while a fork waits.

    OpenBLAS' own fork handler hangs while another thread is inside it. Who comes while a fork waits has to wait too:
    among threads that always multiply there is never a moment in which none does.
    """

    def __init__(self) -> None:
        self.changed = threading.Condition(threading.Lock())
        # Threads, not their number: one that an interruption kept from signing off signs off with its next product.
        self.multiplying: set[int] = set()
        self.forking: set[int] = set()

    @contextmanager
    def product(self) -> Iterator[None]:
        """Inside, this thread multiplies."""
        thread = threading.get_ident()
        with self.changed:
            while self.forking:
                self.changed.wait()
            self.multiplying.add(thread)
        try:
            yield
        finally:
            with self.changed:
                self.multiplying.discard(thread)
                if self.forking:
                    self.changed.notify_all()

    def close(self) -> None:
        """Before a fork: returns once no other thread multiplies, and holds the lock, so that none begins."""
        thread = threading.get_ident()
        self.changed.acquire()
        self.forking.add(thread)
        while self.multiplying - {thread}:
            self.changed.wait()

    def open(self) -> None:
        """After a fork, in the parent."""
        self.forking.discard(threading.get_ident())
        self.changed.notify_all()
        self.changed.release()


_limit = _Limit()
_gate = _Gate()


def _before_fork() -> None:
    _gate.close()
    _limit.lock.acquire()  # so that the child knows what is set


def _after_in_parent() -> None:
    _limit.lock.release()
    _gate.open()


def _after_in_child() -> None:
    """Of the parent's threads the child has one: nobody multiplies, and nobody else will lift the limit."""
    global _limit, _gate
    if _limit.users:
        _limit.found.restore_original_limits()
    _limit, _gate = _Limit(), _Gate()


if hasattr(os, "register_at_fork"):
    os.register_at_fork(before=_before_fork, after_in_parent=_after_in_parent, after_in_child=_after_in_child)


def multiply(a: Array, b: Array, out: Array) -> None:
    """out [M, N] = a [M, K] @ b [K, N], all float32."""
    with _gate.product():
        np.matmul(a, b, out=out)


@cache
def _controller() -> ThreadpoolController:
    return ThreadpoolController()


@contextmanager
def threaded(threads: int) -> Iterator[None]:
    """Inside, `multiply` uses so many threads of its own; while no other thread multiplies."""
    with _controller().limit(limits=threads, user_api="blas"):
        yield


@contextmanager
def single_threaded() -> Iterator[None]:
    """Inside, `multiply` runs on the thread that calls it (for the whole process: BLAS has one setting)."""
    limit = _limit
    with limit.lock:
        if limit.users == 0:
            limit.found = _controller().limit(limits=1, user_api="blas")
        limit.users += 1
    try:
        yield
    finally:
        with limit.lock:
            limit.users -= 1
            if limit.users == 0:
                limit.found.restore_original_limits()
