"""The executor runs each task once, survives errors, nesting and other callers; BLAS keeps its own threads."""

import subprocess
import sys
import threading
from collections import Counter
from collections.abc import Callable, Iterator
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from threadpoolctl import threadpool_info, threadpool_limits

from resnet_ref import kernels
from resnet_ref.errors import DeviceError
from resnet_ref.kernels.vector import executor
from resnet_ref.kernels.vector.blas import _Gate, single_threaded
from resnet_ref.kernels.vector.executor import ranges, run, thread_count

PATIENCE = 200  # seconds until a test that waits for another thread gives up


@pytest.mark.parametrize("threads", [1, 2, 3, 5, 16])
@pytest.mark.parametrize("count", [0, 1, 2, 7, 1000])
def test_every_task_runs_exactly_once(count: int, threads: int) -> None:
    done: list[int] = []
    run(done.append, count, threads)
    assert Counter(done) == Counter(range(count))


def test_one_thread_is_the_caller_alone_and_runs_in_order() -> None:
    seen: list[tuple[int, int]] = []
    run(lambda number: seen.append((number, threading.get_ident())), 5, 1)
    assert seen == [(number, threading.get_ident()) for number in range(5)]


@pytest.mark.parametrize("threads", [2, 3, 5])
def test_as_many_tasks_run_at_once_as_threads_were_asked_for(threads: int) -> None:
    """Each task waits for all the others, so fewer threads would break the barrier, and the caller is one of them."""
    barrier, seen = threading.Barrier(threads), set()

    def task(number: int) -> None:
        seen.add(threading.get_ident())
        barrier.wait(PATIENCE)

    run(task, threads, threads)
    assert len(seen) == threads
    assert threading.get_ident() in seen


def test_no_more_threads_run_than_were_asked_for_even_in_a_larger_pool() -> None:
    run(lambda number: None, 16, 8)
    seen: set[int] = set()
    run(lambda number: seen.add(threading.get_ident()), 2000, 2)
    assert len(seen) <= 2


@pytest.mark.parametrize("threads", [1, 2, 5])
@pytest.mark.parametrize("failing", [0, 3, 99])
def test_an_exception_is_raised_to_the_caller_and_the_pool_stays_usable(failing: int, threads: int) -> None:
    def task(number: int) -> None:
        if number == failing:
            raise OSError(f"task {number}")

    for _ in range(3):
        with pytest.raises(OSError, match=f"task {failing}"):
            run(task, 100, threads)
    done: list[int] = []
    run(done.append, 50, threads)
    assert sorted(done) == list(range(50))


@pytest.mark.parametrize("where", ["caller", "helper"])
def test_an_exception_ends_the_handing_out_wherever_it_happens(where: str) -> None:
    caller, both_started = threading.get_ident(), threading.Barrier(2)
    started: list[int] = []
    failed = threading.Event()

    def task(number: int) -> None:
        started.append(number)
        if number > 1:
            return
        both_started.wait(PATIENCE)
        if (threading.get_ident() == caller) == (where == "caller"):
            failed.set()
            raise OSError(where)
        failed.wait(PATIENCE)
        threading.Event().wait(0.2)  # time for the other thread to stop the handing out

    with pytest.raises(OSError, match=where):
        run(task, 1000, 2)
    assert len(started) == 2


def test_no_task_is_left_running_when_an_exception_comes_out() -> None:
    """A helper may still be writing into the caller's arrays."""
    caller, both_started, finished = threading.get_ident(), threading.Barrier(2), []

    def task(number: int) -> None:
        both_started.wait(PATIENCE)
        if threading.get_ident() == caller:
            raise OSError("now")
        threading.Event().wait(0.2)
        finished.append(number)

    with pytest.raises(OSError, match="now"):
        run(task, 2, 2)
    assert len(finished) == 1


def test_a_task_may_itself_run_tasks() -> None:
    done: list[tuple[int, int]] = []
    run(lambda outer: run(lambda inner: done.append((outer, inner)), 20, 3), 20, 3)
    assert Counter(done) == Counter((outer, inner) for outer in range(20) for inner in range(20))


def test_callers_on_many_threads_each_get_their_own_tasks_done() -> None:
    """Also while they make the pool grow under one another."""
    done: dict[int, list[int]] = {caller: [] for caller in range(8)}
    start = threading.Barrier(len(done))

    def call(caller: int) -> None:
        start.wait(PATIENCE)
        for _ in range(20):
            run(done[caller].append, 50, caller + 1)

    callers = [threading.Thread(target=call, args=(caller,)) for caller in done]
    for thread in callers:
        thread.start()
    for thread in callers:
        thread.join(PATIENCE)
    for numbers in done.values():
        assert Counter(numbers) == Counter(dict.fromkeys(range(50), 20))


@given(st.integers(0, 500), st.integers(1, 60))
def test_ranges_cover_everything_once_in_the_fewest_nearly_equal_pieces(total: int, step: int) -> None:
    pieces = ranges(total, step)
    assert [number for first, last in pieces for number in range(first, last)] == list(range(total))
    sizes = [last - first for first, last in pieces]
    assert len(pieces) == -(-total // step)
    assert max(sizes, default=0) <= step
    assert max(sizes, default=0) - min(sizes, default=0) <= 1


def blas_threads() -> set[int]:
    """Of NumPy's BLAS; Numba may have loaded SciPy's as well, which no kernel calls."""
    libraries = [library for library in threadpool_info() if library["user_api"] == "blas"]
    return {library["num_threads"] for library in libraries if "scipy.libs" not in library["filepath"]}


@pytest.fixture
def three_blas_threads() -> Iterator[None]:
    with threadpool_limits(3, user_api="blas"):
        assert blas_threads() == {3}
        yield


@pytest.mark.usefixtures("three_blas_threads")
def test_blas_has_one_thread_inside_whichever_thread_asks_and_its_own_number_after() -> None:
    """The fixture has set it from this thread, to which threadpoolctl then leaves it."""
    seen = []

    def ask() -> None:
        with single_threaded():
            seen.append(blas_threads())
        seen.append(blas_threads())

    for _ in range(2):
        thread = threading.Thread(target=ask)
        thread.start()
        thread.join()
    assert seen == [{1}, {3}] * 2


@pytest.mark.usefixtures("three_blas_threads")
def test_the_last_of_several_threads_lifts_the_limit_of_the_first() -> None:
    first, second = (threading.Event() for _ in range(2))

    def ask() -> None:
        with single_threaded():
            first.set()
            second.wait(PATIENCE)

    thread = threading.Thread(target=ask)
    thread.start()
    assert first.wait(PATIENCE)
    with single_threaded():
        second.set()
        thread.join()
        assert blas_threads() == {1}
    assert blas_threads() == {3}


@pytest.mark.usefixtures("three_blas_threads")
def test_blas_has_one_thread_inside_and_its_own_number_after() -> None:
    with single_threaded():
        assert blas_threads() == {1}
        with single_threaded():
            assert blas_threads() == {1}
        assert blas_threads() == {1}
    assert blas_threads() == {3}


@pytest.mark.usefixtures("three_blas_threads")
def test_of_overlapping_users_the_last_to_leave_restores_blas() -> None:
    """Neither is inside the other: the first to enter leaves first."""
    first, second = single_threaded(), single_threaded()
    first.__enter__()
    second.__enter__()
    first.__exit__(None, None, None)
    assert blas_threads() == {1}
    second.__exit__(None, None, None)
    assert blas_threads() == {3}


@pytest.mark.usefixtures("three_blas_threads")
def test_an_exception_inside_restores_blas_too() -> None:
    with pytest.raises(OSError, match="inside"), single_threaded():
        raise OSError("inside")
    assert blas_threads() == {3}


@pytest.mark.usefixtures("three_blas_threads")
def test_convolutions_on_several_threads_leave_blas_as_it_was() -> None:
    tier = kernels.on("cpu", threads=2)
    x, w, window = np.ones((1, 20, 21, 3), np.float32), np.ones((3, 3, 3, 4), np.float32), kernels.geometry.Window(3)
    results: list[Any] = []
    callers = [threading.Thread(target=lambda: results.append(tier.conv2d(x, w, window, window))) for _ in range(4)]
    for thread in callers:
        thread.start()
    for thread in callers:
        thread.join(PATIENCE)
    assert [(result == 27).all() for result in results] == [True] * 4
    assert blas_threads() == {3}


@pytest.mark.parametrize("threads", [1, 2, 1024])
def test_a_number_of_threads_is_taken_as_it_is(threads: int) -> None:
    assert thread_count(threads) == threads
    assert kernels.on("cpu", threads).threads == threads


@pytest.mark.parametrize("threads", [0, -1, 1025, True, False, 2.0, "2"])
def test_a_wrong_number_of_threads_is_refused(threads: Any) -> None:
    with pytest.raises(DeviceError, match=f"None or a whole number from 1 to 1024, got {threads!r}"):
        kernels.on("cpu", threads)


@pytest.mark.parametrize(("affinity", "cgroup", "threads"), [(4, 2, 2), (2, 4, 2), (3, 1 << 30, 3), (1, 0, 1)])
def test_by_default_as_many_threads_as_scheduler_and_control_group_allow(
    monkeypatch: pytest.MonkeyPatch, affinity: int, cgroup: int, threads: int
) -> None:
    monkeypatch.setattr(executor, "_affinity", lambda: affinity)
    monkeypatch.setattr(executor, "_cgroup_limit", lambda: cgroup)
    assert thread_count(None) == threads


@pytest.mark.parametrize(
    ("text", "limit"),
    [("150000 100000\n", 2), ("200000 100000", 2), ("50000 100000", 1), ("max 100000", 1 << 30), ("", 1 << 30)],
)
def test_the_control_groups_quota_is_rounded_up_and_max_is_no_limit(
    monkeypatch: pytest.MonkeyPatch, text: str, limit: int
) -> None:
    monkeypatch.setattr(executor, "Path", lambda name: SimpleNamespace(read_text=lambda encoding: text))
    assert executor._cgroup_limit() == limit


def test_without_control_groups_there_is_no_limit(monkeypatch: pytest.MonkeyPatch, tmp_path: Any) -> None:
    monkeypatch.setattr(executor, "Path", lambda name: tmp_path / "absent")
    assert executor._cgroup_limit() == 1 << 30


LATE = """
import threading
import numpy as np
from resnet_ref import kernels
from resnet_ref.kernels import geometry

tier = kernels.on("cpu", threads=3)
x, w = np.ones((1, 40, 40, 64), np.float32), np.ones((3, 3, 64, 64), np.float32)
window = geometry.same(40, 3)
main = threading.main_thread()

def compute():
    main.join()
    print(tier.conv2d(x, w, window, window)[0, 9, 9, 9], tier.spatial_mean(x)[0, 0, 0, 0])

threading.Thread(target=compute).start()
"""


def test_a_thread_that_outlives_the_main_one_still_computes() -> None:
    done = subprocess.run([sys.executable, "-c", LATE], capture_output=True, text=True, timeout=PATIENCE, check=False)
    assert (done.returncode, done.stdout, done.stderr) == (0, "576.0 1.0\n", "")


@pytest.mark.parametrize("started", [0, 1])
def test_where_no_more_threads_can_be_started_those_there_are_do_everything(
    started: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    pool, really_start, count = executor._Pool(), threading.Thread.start, 0

    def start(thread: threading.Thread) -> None:
        nonlocal count
        if count == started:
            raise RuntimeError("can't start new thread")
        count += 1
        really_start(thread)

    monkeypatch.setattr(executor, "_pool", pool)
    monkeypatch.setattr(threading.Thread, "start", start)
    done: list[int] = []
    run(done.append, 100, 4)
    assert pool.size == started
    assert sorted(done) == list(range(100))


def in_thread(call: Callable[[], object]) -> threading.Thread:
    thread = threading.Thread(target=call, daemon=True)
    thread.start()
    return thread


def test_who_wants_to_multiply_while_a_fork_waits_comes_after_it() -> None:
    gate, done, began, inside, finish = _Gate(), [], threading.Event(), threading.Event(), threading.Event()

    def multiply() -> None:
        with gate.product():
            inside.set()
            finish.wait(PATIENCE)
        done.append("product")

    def fork() -> None:
        began.set()
        gate.close()
        done.append("fork")
        gate.open()

    def newcomer() -> None:
        with gate.product():
            done.append("newcomer")

    first = in_thread(multiply)
    assert inside.wait(PATIENCE)
    forks = in_thread(fork)
    while not gate.forking:
        began.wait(0.001)
    late = in_thread(newcomer)
    late.join(0.2)
    assert not done, "the newcomer waits for a fork that waits for the product"
    finish.set()
    for thread in (first, forks, late):
        thread.join(PATIENCE)
    assert done.index("fork") < done.index("newcomer")
