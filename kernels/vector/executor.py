"""Shares the tasks of one call of an eager kernel among threads. (Plans have a team of their own: team.py.)

Numba's parallel=True is not used: two Python threads in it, or a fork after it, end the process. Instead a kernel is a
function of a range of rows that runs without the GIL, and `run` hands out the ranges. How the work is cut depends on
the shapes alone, never on the number of threads, so that results do not either.
"""

import os
import sys
import threading
from collections.abc import Callable
from concurrent.futures import Future
from pathlib import Path
from queue import SimpleQueue

from resnet_ref.errors import DeviceError
from resnet_ref.kernels.scalars import whole
from resnet_ref.kernels.vector.sysctl import sysctl_number

Queue = SimpleQueue["tuple[Future[None], Callable[[], None]]"]


class _Pool:
    """One pool for the process, grown to the largest number of helpers anyone asked for.

    Not a ThreadPoolExecutor: that takes no work once the main thread has ended, and when a thread cannot be started it
    keeps the work for another, of which the caller does not know.
    """

    def __init__(self) -> None:
        self.queue: Queue = SimpleQueue()
        self.size = 0

    def submit(self, task: Callable[[], None], helpers: int) -> list["Future[None]"]:
        """The task for so many helpers, or for fewer where the system gives no more threads."""
        while self.size < helpers:
            try:
                threading.Thread(target=_serve, args=(self.queue,), name="resnet-ref", daemon=True).start()
            except RuntimeError:
                break
            self.size += 1
        futures: list[Future[None]] = [Future() for _ in range(min(helpers, self.size))]
        for future in futures:
            self.queue.put((future, task))
        return futures


def _serve(queue: Queue) -> None:
    while True:
        future, task = queue.get()
        if future.set_running_or_notify_cancel():
            try:
                task()
            except BaseException as error:
                future.set_exception(error)
            else:
                future.set_result(None)
        del future, task  # and what they hold, while this thread waits


_pool = _Pool()
# Threads do not survive a fork; the child makes its own.
if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=_pool.__init__)  # type: ignore[misc]


def run(task: Callable[[int], None], count: int, threads: int) -> None:
    """Call task(0) .. task(count - 1), in any order, on up to `threads` threads; the caller is one of them.

    Returns when all are done. An exception in a task ends the handing out and is raised here.
    """
    numbers = iter(range(count))  # next() on it is atomic under the GIL

    def work() -> None:
        try:
            for number in numbers:
                task(number)
        finally:
            for _ in numbers:  # after an exception, wherever it happened: nothing more is handed out
                pass

    helpers = _pool.submit(work, min(threads, count) - 1) if min(threads, count) > 1 else []
    try:
        work()
    finally:
        # A helper that never started is not needed; one that did may still be writing.
        running = [helper for helper in helpers if not helper.cancel()]
        for helper in running:
            helper.exception()
    for helper in running:
        helper.result()


def ranges(total: int, step: int) -> list[tuple[int, int]]:
    """[0, total) cut into the fewest ranges of at most `step`, as equal as can be."""
    count = -(-total // step)
    return [(total * i // count, total * (i + 1) // count) for i in range(count)]


def thread_count(threads: int | None) -> int:
    """`threads` itself, or for None what the scheduler and the control group let this process use."""
    if threads is None:
        return max(1, min(_affinity(), _cgroup_limit()))
    count = whole(threads)
    if count is None or not 1 <= count <= 1024:
        raise DeviceError(f"threads must be None or a whole number from 1 to 1024, got {threads!r}")
    return count


def _affinity() -> int:
    if hasattr(os, "sched_getaffinity"):
        return len(os.sched_getaffinity(0))
    if sys.platform == "darwin" and (fast := sysctl_number("hw.perflevel0.logicalcpu")):
        return fast  # Apple's performance cores: the efficiency cores would be waited for at every barrier
    return os.cpu_count() or 1


def _cgroup_limit() -> int:
    """CPUs granted by cgroup v2's cpu.max ("quota period", or "max period"), rounded up."""
    try:
        quota, period = Path("/sys/fs/cgroup/cpu.max").read_text("utf-8").split()
        return -(-int(quota) // int(period))
    except (OSError, ValueError):
        return 1 << 30
