"""NumPy's BLAS as our kernels call it: on as many threads as they say, and so that a fork may come at any time.

Apple's Accelerate, which NumPy's wheels for macOS 14 and later bring, takes no such number: threadpoolctl cannot hold
it. There VECLIB_MAXIMUM_THREADS=1, in the environment before Python starts, does. Results are right either way.
"""

import os
import threading
from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager
from functools import cache
from typing import Any

import numpy as np
from threadpoolctl import ThreadpoolController

from resnet_ref.kernels.arrays import Array


class _Limit:
    """How many threads a product has. Nested and concurrent users share one limit: the first sets it, the last lifts
    it. BLAS has one setting for the process."""

    def __init__(self) -> None:
        self.lock = threading.RLock()
        self.users = 0
        self.found: list[int | None] = []  # each library's threads, before the first

    def take(self, threads: int) -> None:
        """From now on so many, for one user more."""
        with self.lock:
            if self.users == 0:
                self.found = [library.num_threads for library in _libraries()]
                _set([threads] * len(self.found))
            self.users += 1

    def give_back(self) -> None:
        """One user less."""
        with self.lock:
            self.users -= 1
            if self.users == 0:
                self.restore()

    def restore(self) -> None:
        """As it was before the first user."""
        _set(self.found)


@cache
def _libraries() -> Sequence[Any]:
    return ThreadpoolController().select(user_api="blas").lib_controllers


def _set(threads: Iterable[int | None]) -> None:
    for library, count in zip(_libraries(), threads, strict=True):
        if count is not None:
            # Threadpoolctl leaves OpenBLAS to the first thread that set it, and ignores others while that one lives.
            release = getattr(library, "clear_controlling_thread", lambda force: None)
            release(force=True)
            library.set_num_threads(count)
            release(force=True)


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
        _limit.restore()
    _limit, _gate = _Limit(), _Gate()


if hasattr(os, "register_at_fork"):
    os.register_at_fork(before=_before_fork, after_in_parent=_after_in_parent, after_in_child=_after_in_child)


def multiply(a: Array, b: Array, out: Array) -> None:
    """out [M, N] = a [M, K] @ b [K, N], all float32."""
    with _gate.product():
        np.matmul(a, b, out=out)


@contextmanager
def threaded(threads: int) -> Iterator[None]:
    """Inside, `multiply` uses so many threads of its own; nobody else may be inside of this or `single_threaded`."""
    limit = _limit
    limit.take(threads)
    try:
        yield
    finally:
        limit.give_back()


@contextmanager
def single_threaded() -> Iterator[None]:
    """Inside, `multiply` runs on the thread that calls it, whichever thread that is."""
    with threaded(1):
        yield
