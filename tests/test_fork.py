"""Forked processes: a child and its parent each get the numbers of their own images, and nobody waits for ever.

What they would share shows only where both compute different images, in memory large enough to be mapped.
"""

import os
import subprocess
import sys
import textwrap
from pathlib import Path

import needs
import pytest

from resnet_ref.kernels.vector import blas
from resnet_ref.kernels.vector.memory import HUGE_PAGE

pytestmark = needs.FORK
PATIENCE = 300  # seconds until a test that waits for another process gives up

BEGIN = f"""
import faulthandler, os, sys, threading
faulthandler.dump_traceback_later({PATIENCE - 20}, exit=True)  # where it hangs, if it does
import numpy as np
from resnet_ref import kernels, load_model
from resnet_ref.kernels import geometry
from resnet_ref.plan import planner

planner.thread_count = lambda threads: threads or 64  # more threads than there are cores

def ended(child):
    assert os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == 0

def forever(call):
    def work():
        while True:
            call()
    threading.Thread(target=work, daemon=True).start()
"""


def run(code: str, *arguments: object) -> None:
    """The code, after BEGIN, in a process that must end well and silently."""
    script = BEGIN + textwrap.dedent(code)
    command = [sys.executable, "-W", "ignore", "-c", script, *map(str, arguments)]
    done = subprocess.run(command, capture_output=True, text=True, timeout=PATIENCE, check=False)
    assert (done.returncode, done.stdout, done.stderr) == (0, "", "")


MODEL = """
    threads, n, height, width = map(int, sys.argv[1:5])
    model = load_model(device="cpu", threads=threads)
    rng = np.random.default_rng(0)
    batches = [(rng.standard_normal((n, height, width, 3)) * 50).astype(np.float32) for _ in range(4)]
    right = [model(batch) for batch in batches]

    def wrong(number):
        return int((model(batches[number]) != right[number]).any())
"""
# The digits network's arenas, from less than a huge page to several.
SIZES = [(1, 64, 60), (32, 61, 64), (3, 200, 150)]
BEFORE = {"idle": "", "at work": "    forever(lambda: model(batches[3]))\n"}


@pytest.mark.parametrize("size", SIZES, ids=str)
@pytest.mark.parametrize("threads", [1, 2])
@pytest.mark.parametrize("before", BEFORE.values(), ids=BEFORE)
def test_child_and_parent_get_the_answers_for_their_own_images(
    before: str, threads: int, size: tuple[int, int, int]
) -> None:
    code = """
    for _ in range(3):
        child = os.fork()
        mine = 0 if child else 1
        count = sum(wrong(mine) for _ in range(15))
        if child == 0:
            os._exit(count)
        ended(child)
        assert count == 0, f"{count} of 15 answers are other images'"
    """
    run(MODEL + before + code, threads, *size)


def test_the_sizes_above_lie_on_both_sides_of_what_is_mapped() -> None:
    code = f"""
    sizes = [model.plan(*size).program.nbytes for size in {SIZES}]
    assert sizes[0] < {HUGE_PAGE} and max(sizes) > 4 * {HUGE_PAGE}, sizes
    """
    run(MODEL + code, 1, *SIZES[0])


POOLS = {
    "multiprocessing": "multiprocessing.get_context('fork').Pool(2)",
    "concurrent.futures": "ProcessPoolExecutor(2, mp_context=multiprocessing.get_context('fork'))",
}


@pytest.mark.parametrize("pool", POOLS.values(), ids=POOLS)
@pytest.mark.parametrize("threads", [1, 2])
def test_workers_of_a_pool_get_the_answers_for_their_own_images(pool: str, threads: int) -> None:
    code = f"""
    import multiprocessing
    from concurrent.futures import ProcessPoolExecutor

    with {pool} as workers:
        numbers = list(range(4)) * 6
        count = sum(workers.map(wrong, numbers, chunksize=1))
        assert count == 0, f"{{count}} of 24 batches are wrong"
    assert not any(map(wrong, range(4)))
    """
    run(MODEL + code, threads, *SIZES[1])


EAGER = """
    tier, window = kernels.on("cpu", threads=int(sys.argv[1])), geometry.same(40, 3)
    rng = np.random.default_rng(0)
    inputs = [rng.standard_normal((1, 40, 40, 64)).astype(np.float32) for _ in range(3)]
    w = rng.standard_normal((3, 3, 64, 48)).astype(np.float32)

    def conv(number):
        return tier.conv2d(inputs[number], w, window, window)

    right = [conv(number) for number in range(3)]
"""


@pytest.mark.parametrize("threads", [1, 2])
@pytest.mark.parametrize("callers", [0, 1, 4])
def test_forks_beside_threads_that_compute_layer_by_layer_come_through(callers: int, threads: int) -> None:
    """Among four threads there is hardly a moment in which none multiplies."""
    code = """
    for _ in range(int(sys.argv[2])):
        forever(lambda: conv(2))
    for _ in range(20):
        child = os.fork()
        good = (conv(0 if child else 1) == right[0 if child else 1]).all()
        if child == 0:
            os._exit(0 if good else 3)
        ended(child)
        assert good
    """
    run(EAGER + code, threads, callers)


def test_a_child_has_helpers_of_its_own() -> None:
    code = """
    from resnet_ref.kernels.vector.executor import run
    def three_at_once():
        barrier = threading.Barrier(3)
        run(lambda number: barrier.wait(60), 3, 3)  # three threads, or the barrier breaks
    three_at_once()
    child = os.fork()
    three_at_once()
    if child == 0:
        os._exit(0)
    ended(child)
    """
    run(code)


def test_a_child_finds_blas_as_it_was_before_the_call_that_it_was_forked_beside() -> None:
    code = """
    from threadpoolctl import threadpool_info, threadpool_limits
    from resnet_ref.kernels.vector.blas import single_threaded
    def count():
        return {one["num_threads"] for one in threadpool_info() if one["user_api"] == "blas"}
    inside, go_on = threading.Event(), threading.Event()
    def hold():
        with single_threaded():
            inside.set()
            go_on.wait()
    with threadpool_limits(3, user_api="blas"):
        threading.Thread(target=hold, daemon=True).start()
        inside.wait()
        child = os.fork()
        if child == 0:
            with single_threaded():
                assert count() == {1}
            os._exit(0 if count() == {3} else 4)
        assert count() == {1}
        go_on.set()
        ended(child)
    """
    run(code)


LOCKS = {
    "plans": "from resnet_ref.plan.planner import _lock as lock",
    "LLVM": "from resnet_ref.kernels.vector.objects import _lock as lock",
    "Numba": "import resnet_ref.kernels.vector.compiled\n"
    "from numba.core.compiler_lock import global_compiler_lock as lock",
}


@pytest.mark.parametrize("lock", LOCKS.values(), ids=LOCKS)
def test_a_fork_waits_for_who_holds_a_lock(lock: str) -> None:
    """Else the child would have a lock that nobody opens."""
    code = """
held, go_on = threading.Event(), threading.Event()
def hold():
    lock.acquire()
    held.set()
    go_on.wait()
    lock.release()
holder = threading.Thread(target=hold)
holder.start()
held.wait()
threading.Timer(.2, go_on.set).start()
child = os.fork()
if child == 0:
    os._exit(0 if not holder.is_alive() and lock.acquire() is not False else 3)
ended(child)
lock.acquire()
"""
    run(f"{lock}\n{code}")


def test_a_thread_that_was_interrupted_in_a_product_may_fork() -> None:
    """A signal's handler forks between two lines of the thread that multiplies; nobody else would let it go on."""
    with blas._gate.product():
        child = os.fork()
        if child == 0:
            os._exit(0)
    assert os.waitpid(child, 0)[1] == 0


def test_child_and_parent_read_one_open_checkpoint_at_once(tmp_path: Path) -> None:
    """Each from where it wants to, though they share the file's position."""
    code = """
    from pathlib import Path
    from resnet_ref.weights.checkpoint.source import Source
    path = Path(sys.argv[1])
    numbers = np.arange(1 << 18, dtype=np.int64)
    path.write_bytes(numbers.tobytes())
    with Source(path, "numbers") as source:
        child = os.fork()
        for first in range(0 if child else 7, 200_000, 1 if child else 3):
            got = np.empty(8 * 100, np.uint8)
            source.read_into(got, 8 * first, "numbers")
            good = (got.view(np.int64) == numbers[first : first + 100]).all()
            good = good and source.read(8 * first, 16, "two") == numbers[first : first + 2].tobytes()
            if not good:
                os._exit(5)
        if child == 0:
            os._exit(0)
        ended(child)
    """
    run(code, tmp_path / "numbers")


def test_child_and_parent_ask_other_readers_of_one_pool() -> None:
    """Else each would read the other's answers from the one pipe."""
    code = """
    import math
    from resnet_ref import ImageError
    from resnet_ref.isolation import Pool
    def ask(pool, first):
        for number in range(first, first + 200):
            answer = pool.call(math.factorial, number, what="a number", error=ImageError)
            assert answer == math.factorial(number), (number, answer)
    with Pool(2) as pool:
        ask(pool, 1)
        child = os.fork()
        ask(pool, 300 if child else 700)
        if child == 0:
            pool.close()
            os._exit(0)
        ended(child)
        ask(pool, 1)
    """
    run(code)
