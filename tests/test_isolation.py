"""What a child process does, and what ends it, reaches its parent as a result or as one line of error."""

import importlib
import os
import signal
import subprocess
import sys
import textwrap
import threading
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import h5py
import needs
import numpy as np
import pytest
from conftest import Run
from in_child import (
    abort,
    allocate_in_c,
    allocate_without_end,
    arrays,
    be_awkward,
    crash,
    fail,
    identity,
    leave,
    limits,
    loop,
    process,
    say,
    segfault,
    sleep,
    write,
)
from recordings import record_definition

from resnet_ref import errors, load_weights, weights_file
from resnet_ref.errors import CheckpointError, ImageError, ResnetRefError, WeightsError
from resnet_ref.isolation import Pool, _Child, _why, isolated

verify_command = importlib.import_module("resnet_ref.cli.verify")
PATIENCE = 120  # seconds until a test that waits for another thread or process gives up
ERRORS = [error for error in vars(errors).values() if isinstance(error, type) and issubclass(error, ResnetRefError)]


@pytest.mark.parametrize(
    ("function", "seconds", "said"),
    [
        pytest.param(
            segfault,
            600,
            r"w\.h5 ended the process that was reading it \(SIGSEGV\); it is damaged, or made to do harm; take",
            marks=needs.KILL,
        ),
        pytest.param(abort, 600, r"w\.h5 ended the process that was reading it \(SIGABRT\); ", marks=needs.KILL),
        (leave, 600, r"w\.h5 ended the process that was reading it \(status 3\); "),
        *(
            pytest.param(
                function, 600, r"w\.h5 takes more than 300 MiB of memory to read, so that was", marks=needs.LIMITS
            )
            for function in (allocate_without_end, allocate_in_c)
        ),
        (loop, 2, r"w\.h5 was not read within 2 s, so that was ended; "),
    ],
)
@pytest.mark.parametrize("error", [CheckpointError, ImageError])
def test_a_child_that_dies_or_must_be_ended_is_one_line_of_the_callers_error(
    function: Callable[[], None], seconds: float, said: str, error: type[ResnetRefError]
) -> None:
    with pytest.raises(error, match=said) as caught:
        isolated(function, what="w.h5", error=error, memory=300 << 20, seconds=seconds)
    assert "\n" not in str(caught.value)
    assert caught.value.__cause__ is None


@pytest.mark.parametrize("error", [*ERRORS, KeyError, ValueError, OSError, RecursionError, SystemExit])
def test_what_the_function_raises_is_raised_here_as_itself(error: type[Exception]) -> None:
    with Pool() as pool, pytest.raises(error) as caught:
        pool.call(fail, error, "ü: what and why", what="x", error=WeightsError)
    assert type(caught.value) is error
    assert "what and why" in str(caught.value)


def test_an_error_that_cannot_be_sent_keeps_its_words() -> None:
    with pytest.raises(RuntimeError, match="Awkward: 1 and 2"):
        isolated(be_awkward, what="x")


def test_prints_of_the_child_reach_neither_our_output_nor_its_answer(capfd: pytest.CaptureFixture[str]) -> None:
    assert isolated(say, "words", what="x") == "words"
    assert capfd.readouterr() == ("", "")


def test_arrays_come_back_whole_and_ours_to_change() -> None:
    found = isolated(arrays, 30_000_000, what="x")
    np.testing.assert_array_equal(found["a"], np.arange(30_000_000, dtype=np.float32))
    found["a"][0] = 7
    assert found["b"].shape == (3, 0)
    assert found["text"] == "ü"


@needs.PROC
def test_a_large_array_is_not_held_twice_by_who_receives_it() -> None:
    script = """
        import os, sys
        sys.path.insert(0, os.getcwd())
        import test_isolation
        from resnet_ref.isolation import isolated

        def most():
            return int(open("/proc/self/status").read().split("VmHWM:")[1].split()[0]) // 1024

        before = most()
        isolated(test_isolation.arrays, 50_000_000, what="x")  # 200 MB
        print(most() - before)
    """
    done = subprocess.run(
        [sys.executable, "-c", textwrap.dedent(script)], cwd=Path(__file__).parent, capture_output=True, text=True,
        check=True,
    )  # fmt: skip
    assert 180 < int(done.stdout) < 230


def test_an_answer_beyond_the_limit_of_memory_is_not_taken() -> None:
    """Who took over the child could claim any length."""
    with pytest.raises(WeightsError, match="x takes more than 100 MiB of memory"):
        isolated(arrays, 30_000_000, what="x", memory=100 << 20)


def test_arguments_arrive_as_they_were() -> None:
    given = (Path("a b"), {"x": [1, None]}, np.arange(3))
    found = isolated(identity, *given, what="x")
    assert found[:2] == given[:2]
    np.testing.assert_array_equal(found[2], given[2])


@needs.LIMITS
def test_the_child_writes_no_file_and_no_core_and_imports_nothing_from_the_folder_we_are_in(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    for name in ("numpy", "json", "pickle", "PIL"):
        (tmp_path / f"{name}.py").write_text("raise SystemExit('taken over')")
    monkeypatch.chdir(tmp_path)
    monkeypatch.syspath_prepend("")
    core, memory, first = isolated(limits, what="x", memory=1 << 30)
    assert core == 0
    assert 1 << 30 < memory < 8 << 30
    assert first not in ("", str(tmp_path))
    with pytest.raises(OSError, match="File too large"):
        isolated(write, tmp_path / "file", what="x")


@needs.KILL
def test_a_pool_keeps_its_children_and_replaces_those_that_die() -> None:
    with Pool() as pool:
        first = pool.call(process, what="x", error=ImageError)
        assert pool.call(process, what="x", error=ImageError) == first != os.getpid()
        with pytest.raises(ImageError, match="SIGSEGV"):
            pool.call(segfault, what="x", error=ImageError)
        second = pool.call(process, what="x", error=ImageError)
        with pytest.raises(ImageError, match=r"not read within 0\.5 s"):
            pool.call(loop, what="x", error=ImageError, seconds=0.5)
        assert len({first, second, pool.call(process, what="x", error=ImageError)}) == 3
        last = pool.call(process, what="x", error=ImageError)
        os.kill(last, signal.SIGKILL)
        os.waitid(os.P_PID, last, os.WEXITED | os.WNOWAIT)
        assert pool.call(process, what="x", error=ImageError)


def begin() -> None:
    global begun
    begun = True


begun = False


def has_begun() -> bool:
    return begun


def test_a_pools_children_begin_with_what_they_are_told() -> None:
    with Pool(begin=begin) as pool:
        assert pool.call(has_begun, what="x", error=ImageError)
    assert not begun


def test_a_pools_children_work_at_the_same_time_for_several_threads() -> None:
    with Pool(4) as pool:
        results: list[float] = []
        calls = [
            threading.Thread(target=lambda: results.append(pool.call(sleep, 0.5, what="x", error=ImageError)))
            for _ in range(8)
        ]
        for call in calls:
            call.start()
        for call in calls:
            call.join()
    assert results == [0.5] * 8


@needs.SIGNALS
def test_closing_a_pool_ends_calls_at_work_and_leaves_no_process() -> None:
    caught: list[str] = []
    pool = Pool()
    child = pool.call(process, what="x", error=ImageError)

    def call() -> None:
        try:
            pool.call(sleep, 60.0, what="x", error=ImageError)
        except ImageError as error:
            caught.append(str(error))

    thread = threading.Thread(target=call)
    thread.start()
    while not pool._children[0]._busy:
        time.sleep(0.01)
    pool.close()
    thread.join(PATIENCE)
    assert caught == ["x was not read: the command ended first"]
    with pytest.raises(ProcessLookupError):
        os.kill(child, 0)
    with pytest.raises(ImageError, match="cannot start a process to read x: the command is ending"):
        pool.call(process, what="x", error=ImageError)


@pytest.mark.parametrize("moment", ["_take", "_give_back"])
def test_a_pool_may_be_closed_at_any_moment_of_a_call(moment: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """As soon as the child is the call's, and just before it is given back."""
    really = getattr(_Child, moment)

    def close_too(child: _Child, *arguments: Any) -> Any:
        if moment == "_give_back":
            child.close()
            return really(child, *arguments)
        process = really(child, *arguments)
        child.close()
        return process

    with Pool() as pool:
        pid = pool.call(process, what="x", error=ImageError)
        monkeypatch.setattr(_Child, moment, close_too)
        if moment == "_take":
            with pytest.raises(ImageError, match="x was not read: the command ended first"):
                pool.call(process, what="x", error=ImageError)
        else:
            assert pool.call(process, what="x", error=ImageError) == pid  # the answer was there
        with pytest.raises(ProcessLookupError):
            os.kill(pid, 0)


@needs.PROC
def test_a_child_whose_parent_was_killed_ends_too() -> None:
    script = """
        import os, signal, sys
        sys.path.insert(0, os.getcwd())
        import test_isolation
        from resnet_ref.errors import ImageError
        from resnet_ref.isolation import Pool
        print(Pool().call(test_isolation.process, what="x", error=ImageError), flush=True)
        os.kill(os.getpid(), signal.SIGKILL)
    """
    done = subprocess.run(
        [sys.executable, "-c", textwrap.dedent(script)], cwd=Path(__file__).parent, capture_output=True, text=True,
        check=False,
    )  # fmt: skip
    until = time.monotonic() + PATIENCE
    stat = Path("/proc", done.stdout.strip(), "stat")
    while stat.exists() and stat.read_text().split()[2] != "Z" and time.monotonic() < until:
        time.sleep(0.05)
    assert not stat.exists() or stat.read_text().split()[2] == "Z"


def test_where_no_process_can_be_started_it_is_said(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sys, "executable", "/nowhere/python")
    with pytest.raises(WeightsError, match=r"cannot start a process to read w\.h5: No such file or directory"):
        isolated(process, what="w.h5")


@pytest.mark.parametrize(
    ("status", "said"),
    [
        (0, "status 0"), (3, "status 3"), (-11, "SIGSEGV"), (-99, "signal 99"),
        (3221225477, "access violation, 0xC0000005"), (0xC0000374, "heap corruption, 0xC0000374"),
        (0xC0000001, "0xC0000001"), (0x40010004, "0x40010004"),
    ],
)  # fmt: skip
def test_an_exit_status_is_said_as_its_system_says_it(status: int, said: str) -> None:
    """Signals, and Windows' codes of exceptions."""
    assert f"reading it ({said}); " in _why("x", "", status, 1 << 30, 1.0)


# On the command line.


DIED = "ended the process that was reading it (SIGSEGV); it is damaged, or made to do harm; take it from a source"


def unsealed(file: Path, folder: Path) -> Path:
    (path := folder / "version 1.h5").write_bytes(file.read_bytes()[512:])
    return path


COMMANDS = [
    "classify {photo} --weights {weights}", "features {photo} -o {folder}/f.h5 --weights {weights}",
    "summary --weights {weights}", "trace {photo} --profile --weights {weights}", "bench --weights {weights}",
    "verify {weights} recorded.h5", "export {weights} {folder}/w.safetensors", "record {weights} {photo} -o r.h5",
]  # fmt: skip


@needs.KILL
@pytest.mark.parametrize("command", COMMANDS)
@pytest.mark.parametrize("is_sealed", [True, False])
def test_on_the_command_line_a_weights_file_takes_no_more_than_a_child_with_it(
    tiny_file: Path, tmp_path: Path, photos: list[Path], run: Run, monkeypatch: pytest.MonkeyPatch, command: str,
    is_sealed: bool,
) -> None:  # fmt: skip
    path = tiny_file if is_sealed else unsealed(tiny_file, tmp_path)
    monkeypatch.setattr(weights_file, "contents", crash)
    status, out, err = run(*(word.format(photo=photos[0], folder=tmp_path, weights=path) for word in command.split()))
    assert (status, out) == (2, "")
    assert err.startswith(f"resnet-ref: {path} {DIED}")
    assert len(err.splitlines()) == 1


@pytest.mark.parametrize("is_sealed", [True, False])
def test_what_is_read_apart_is_the_same_and_libhdf5_is_not_asked_here(
    tiny_file: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, is_sealed: bool
) -> None:
    path = tiny_file if is_sealed else unsealed(tiny_file, tmp_path)
    here = load_weights(path)
    monkeypatch.setattr(h5py, "File", fail)
    there = weights_file.load_weights_apart(path)
    assert list(there) == list(here)
    for name, array in here.items():
        assert there[name].dtype == array.dtype
        assert there[name].tobytes() == array.tobytes()
    for said in ("network", "labels", "preprocessing", "source", "written_by", "path"):
        assert getattr(there, said) == getattr(here, said)


@needs.KILL
def test_a_recording_is_read_by_a_child_before_it_is_read_here(
    tiny_file: Path, tmp_path: Path, photos: list[Path], run: Run, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = record_definition(tmp_path / "r.h5", load_weights(tiny_file), photos)
    assert run("verify", tiny_file, path, "--device", "cpu")[0] == 0
    monkeypatch.setattr(verify_command, "_read_once", crash)
    status, _, err = run("verify", tiny_file, path, "--device", "cpu")
    assert status == 2
    assert err.startswith(f"resnet-ref: {path} {DIED}")
