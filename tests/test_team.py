"""The threads that run programs: they change no number, serve all callers, and rest when idle."""

import gc
import os
import signal
import subprocess
import sys
import threading
import time
import weakref
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import needs
import numpy as np
import pytest
from planned import ISAS

from resnet_ref import load_model
from resnet_ref.kernels.vector import team
from resnet_ref.kernels.vector.team import _Helper, _team
from resnet_ref.plan import planner

PATIENCE = 300  # seconds until a test that waits for another process gives up
IMAGES = (np.random.default_rng(3).standard_normal((3, 29, 26, 3)) * 60).astype(np.float32)
Load = Callable[..., Any]


@pytest.fixture
def load(tiny_file: Path) -> Load:
    return lambda threads, **options: load_model(tiny_file, "cpu", threads=threads, **options)


@pytest.fixture(autouse=True)
def more_threads_than_cores(monkeypatch: pytest.MonkeyPatch) -> None:
    """A planner asks for no more threads than there are cores; here they are to get into each other's way."""
    monkeypatch.setattr(planner, "thread_count", lambda threads: threads or 64)


@pytest.mark.parametrize("isa", ISAS)
@pytest.mark.parametrize("algorithm", ["auto", "direct", "fast"])
def test_the_number_of_threads_changes_no_bit(load: Load, isa: str, algorithm: str) -> None:
    one = load(1, isa=isa, algorithm=algorithm)
    names = list(one.end_points(29, 26))
    _, expected = one(IMAGES, end_points=names)
    for threads in (2, 3, 4):
        _, found = load(threads, isa=isa, algorithm=algorithm)(IMAGES, end_points=names)
        for name in names:
            np.testing.assert_array_equal(found[name], expected[name], err_msg=name)


def test_more_threads_than_cores_and_than_tasks_give_the_same(load: Load) -> None:
    threads = 3 * (os.cpu_count() or 1) + 5
    expected = load(1)(IMAGES)
    model = load(threads)
    for _ in range(20):
        np.testing.assert_array_equal(model(IMAGES), expected)


def at_once(calls: list[Callable[[], None]]) -> None:
    """Runs them on a thread each, from the same moment on."""
    start = threading.Barrier(len(calls))

    def begin(call: Callable[[], None]) -> None:
        start.wait(PATIENCE)
        call()

    with ThreadPoolExecutor(len(calls)) as pool:
        for done in [pool.submit(begin, call) for call in calls]:
            done.result(PATIENCE)


def test_threads_that_call_one_model_at_once_get_what_one_gets(load: Load) -> None:
    model = load(2)
    batches = [IMAGES * (k + 1) / 8 for k in range(4)]
    expected = [load(1)(batch) for batch in batches]

    def call(first: int) -> None:
        for k in range(first, first + 30):
            np.testing.assert_array_equal(model(batches[k % 4]), expected[k % 4])

    at_once([lambda first=first: call(first) for first in range(5)])  # type: ignore[misc]


def test_models_with_other_threads_and_instruction_sets_run_at_once(load: Load) -> None:
    models = [load(threads, isa=isa) for threads in (1, 2, 3, 4) for isa in (ISAS[0], ISAS[-1])]
    expected = {isa: load(1, isa=isa)(IMAGES) for isa in (ISAS[0], ISAS[-1])}

    def call(model: Any, isa: str) -> None:
        for _ in range(20):
            np.testing.assert_array_equal(model(IMAGES), expected[isa])

    both = (ISAS[0], ISAS[-1])
    at_once([lambda m=m, isa=both[i % 2]: call(m, isa) for i, m in enumerate(models)])  # type: ignore[misc]


def test_an_idle_team_uses_no_processor(load: Load) -> None:
    """Helpers look for work for less than a millisecond; then they sleep, and are woken for the next run."""
    model = load(4)
    expected = model(IMAGES)
    time.sleep(0.2)
    before = time.process_time()
    time.sleep(0.5)
    assert time.process_time() - before < 0.1
    np.testing.assert_array_equal(model(IMAGES), expected)


def test_an_interrupt_while_helpers_are_woken_leaves_no_helper_at_work(
    load: Load, monkeypatch: pytest.MonkeyPatch
) -> None:
    """What they work on may be gone once the exception is out."""
    model = load(4)
    expected = model(IMAGES)
    time.sleep(0.1)  # all sleep
    wake = _Helper.wake
    interrupted: list[_Helper] = []

    def interrupt(helper: _Helper) -> None:
        if len(interrupted) == 1:
            interrupted.append(helper)
            raise KeyboardInterrupt
        interrupted.append(helper)
        wake(helper)

    monkeypatch.setattr(_Helper, "wake", interrupt)
    with pytest.raises(KeyboardInterrupt):
        model(IMAGES)
    monkeypatch.undo()
    done = int(_team.memory[team._DONE // 8])
    assert done == 3, "the run was over when the exception came out"
    for _ in range(3):
        np.testing.assert_array_equal(model(IMAGES), expected)


def test_who_is_in_a_librarys_code_keeps_the_library() -> None:
    """Ctrl-C may have made all others let go of it while threads are still in there."""

    class Library(dict[str, int]):
        pass

    library: Any = Library(run=1)
    function, gone = team.native(library, "run", 0), weakref.ref(library)
    del library
    gc.collect()
    assert gone() is not None
    del function
    gc.collect()
    assert gone() is None


def test_dismissed_helpers_are_replaced_when_work_comes(load: Load) -> None:
    model = load(3)
    expected = model(IMAGES)
    for pause in (0.0, 0.05, 0.0):
        gone = [helper.thread for helper in _team.helpers]
        _team.dismiss()
        assert not any(thread.is_alive() for thread in gone)
        np.testing.assert_array_equal(model(IMAGES), expected)
        time.sleep(pause)
        np.testing.assert_array_equal(model(IMAGES), expected)


def test_a_helper_that_found_no_work_at_first_does_not_leave(load: Load) -> None:
    """One that is made where another was sent home, and is slow to be given work."""
    model = load(2)
    expected = model(IMAGES)
    _team.dismiss()
    helper = _Helper(_team.memory, 1, model._planner._target.library)
    time.sleep(0.1)
    assert helper.thread.is_alive()
    _team.helpers.append(helper)
    np.testing.assert_array_equal(model(IMAGES), expected)


BEGIN = """
import faulthandler, os, signal, sys, threading, time
faulthandler.dump_traceback_later(280, exit=True)  # where it hangs, if it does
import numpy as np
from resnet_ref import load_model
from resnet_ref.plan import planner

signal.signal(signal.SIGINT, signal.default_int_handler)  # which a parent may have switched off
planner.thread_count = lambda threads: threads or 64
model = load_model({file!r}, "cpu", threads=3)
images = np.random.default_rng(3).standard_normal((3, 29, 26, 3)).astype(np.float32)
expected = model(images)
def right():
    return (model(images) == expected).all()
"""


def ended(tiny_file: Path, code: str) -> subprocess.CompletedProcess[str]:
    """A process that used a model on three threads and then does this; it must end before PATIENCE."""
    script = BEGIN.format(file=str(tiny_file)) + code
    command = [sys.executable, "-W", "ignore", "-c", script]
    return subprocess.run(command, capture_output=True, text=True, timeout=PATIENCE, check=False)


ENDINGS = {
    "awake": "right()",
    "asleep": "time.sleep(.1)",
    "woken again": "time.sleep(.1); right()",
    "exit": "right(); sys.exit(0)",
    "exit in a thread": "t = threading.Thread(target=lambda: (right(), sys.exit(5))); t.start(); t.join()",
    "a thread that outlives the main one": "threading.Thread(target=lambda: (time.sleep(.2), right())).start()",
    "a daemon that never ends": """
def forever():
    while True:
        right()
threading.Thread(target=forever, daemon=True).start()
time.sleep(.1)
""",
    "used while it ends": "import atexit; atexit.register(lambda: print(right()))",
    "no models left": "del model; import gc; gc.collect()",
}


@pytest.mark.parametrize("code", ENDINGS.values(), ids=ENDINGS)
def test_a_process_ends_by_itself(tiny_file: Path, code: str) -> None:
    done = ended(tiny_file, code)
    assert (done.returncode, done.stderr) == (0, "")


def test_where_no_thread_can_be_started_the_caller_computes_alone(load: Load, monkeypatch: pytest.MonkeyPatch) -> None:
    """So it is from Python 3.12 on, once the interpreter is about to end."""
    model = load(3)
    expected = model(IMAGES)
    _team.dismiss()

    def refuse(thread: threading.Thread) -> None:
        raise RuntimeError("can't create new thread at interpreter shutdown")

    monkeypatch.setattr(threading.Thread, "start", refuse)
    np.testing.assert_array_equal(model(IMAGES), expected)


def test_a_process_that_registered_its_end_before_ours_may_still_compute(tiny_file: Path) -> None:
    """Its function runs after the helpers were sent home."""
    answers = "[print(right(), flush=True) or time.sleep(.05) for _ in range(3)]"
    code = f"import atexit, time\natexit.register(lambda: {answers})\n"
    script = code + BEGIN.format(file=str(tiny_file))
    done = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, timeout=PATIENCE, check=False)
    assert (done.returncode, done.stdout) == (0, "True\n" * 3), done.stderr


RUNNING = """
print("running", flush=True)
while True:
    right()
"""


@needs.SIGNALS
@pytest.mark.parametrize(("number", "status"), [("SIGTERM", -15), ("SIGINT", -2)])
def test_a_signal_ends_a_process_at_work(tiny_file: Path, number: str, status: int) -> None:
    script = BEGIN.format(file=str(tiny_file)) + RUNNING
    with subprocess.Popen([sys.executable, "-c", script], stdout=subprocess.PIPE, stderr=subprocess.PIPE) as process:
        assert process.stdout is not None
        assert process.stdout.readline() == b"running\n"
        process.send_signal(getattr(signal, number))
        _, said = process.communicate(timeout=PATIENCE)
    assert process.returncode == status
    assert (b"KeyboardInterrupt" in said) == (number == "SIGINT")


@needs.ALARM
def test_after_many_interrupts_a_model_still_answers(tiny_file: Path) -> None:
    code = """
signal.signal(signal.SIGALRM, lambda *_: (_ for _ in ()).throw(KeyboardInterrupt))
caught = 0
while caught < 200:
    try:
        signal.setitimer(signal.ITIMER_REAL, .001 + .00001 * caught)
        while True:
            model(images)
    except KeyboardInterrupt:
        caught += 1
signal.setitimer(signal.ITIMER_REAL, 0)
print(all(right() for _ in range(20)))
"""
    done = ended(tiny_file, code)
    assert (done.returncode, done.stdout, done.stderr) == (0, "True\n", "")
