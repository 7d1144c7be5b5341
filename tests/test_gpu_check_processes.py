"""What benchmarks/gpu_check.py is built of: processes that end with all their children, and files that are whole."""

import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import needs
import pytest
from click.testing import CliRunner
from gpu_results import BENCHMARKS, folder, gpu_check, parts, runner

LONG = 600  # seconds that no test lasts


def gone(process: int) -> bool:
    """Whether a process is no more, or nobody has yet asked how it ended."""
    try:
        return Path(f"/proc/{process}/stat").read_text().rpartition(")")[2].split()[0] in "ZX"
    except (FileNotFoundError, ProcessLookupError):
        return True


def until(is_so: Callable[[], bool]) -> None:
    deadline = time.monotonic() + 120
    while not is_so():
        assert time.monotonic() < deadline
        time.sleep(0.01)


@needs.PROC
def test_what_is_ended_leaves_no_child_behind(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Its time is up, so `wait` is made to say, when the child's number is there."""
    number = tmp_path / "number"
    waits = iter([None])
    real = subprocess.Popen.wait

    def wait(self: Any, timeout: float | None = None) -> int:
        for _ in waits:
            until(lambda: number.exists() and number.read_text().endswith("\n"))
            raise subprocess.TimeoutExpired("sh", 1)
        return real(self, timeout)

    monkeypatch.setattr(subprocess.Popen, "wait", wait)
    script = (
        f"trap '' TERM HUP INT; sh -c 'trap \"\" TERM HUP; echo $$ > {number}; while :; do sleep 1000; done' & wait"
    )
    assert runner.ended(["sh", "-c", script], {}, tmp_path / "log", LONG) is None
    child = int(number.read_text())
    until(lambda: gone(child))


@needs.PROC
def test_what_dies_leaves_no_child_behind(tmp_path: Path) -> None:
    script = f"sleep 1000 & echo $! > {tmp_path / 'number'}; kill -KILL $$"
    assert runner.ended(["sh", "-c", script], {}, tmp_path / "log", LONG) == -signal.SIGKILL
    until(lambda: gone(int((tmp_path / "number").read_text())))


def test_a_program_that_is_not_there_is_a_failure(tmp_path: Path) -> None:
    assert runner.ended(["/nowhere/tool"], {}, tmp_path / "log", LONG) == 127
    assert "cannot be started" in (tmp_path / "log").read_text()


class Gone(BaseException):
    """Stands for the machine's end."""


@needs.PROC
@pytest.mark.parametrize("number", runner.SIGNALS)
def test_a_signal_ends_the_part_and_its_children_and_the_summary_comes_all_the_same(
    tmp_path: Path, number: signal.Signals
) -> None:
    program = f"""
import dataclasses, sys
sys.path.insert(0, {str(BENCHMARKS)!r})
import gpu_check
from gpu import runner
runner.missing = gpu_check.missing = dict
def part(name, script, pieces=()):
    return dataclasses.replace(gpu_check.BY_NAME[name], command=lambda at: ["sh", "-c", script], pieces=pieces)
gpu_check.VERSIONS = part("versions", "echo well")
gpu_check.PARTS = [gpu_check.VERSIONS, part("kernels", "echo well"),
                   part("ours", "sleep 1000 & echo $! > {tmp_path}/number; wait")]
gpu_check.main(["--output", {str(tmp_path / "o")!r}])
"""
    process = subprocess.Popen([sys.executable, "-c", program], stdout=subprocess.PIPE, text=True)
    file = tmp_path / "number"
    until(lambda: file.exists() and file.read_text().endswith("\n"))
    process.send_signal(number)
    out, _ = process.communicate(timeout=120)
    assert process.returncode == 130
    until(lambda: gone(int(file.read_text())))
    assert "interrupted" in out
    assert folder.Folder(tmp_path / "o").outcome("ours").state == "CUT"
    assert any(line.split()[:2] == ["kernels", "ok"] for line in out.splitlines())


@pytest.fixture
def kept(tmp_path: Path) -> folder.Pieces:
    return folder.Pieces(str(tmp_path), "ours")


def test_a_piece_is_kept_at_once_and_one_that_fails_does_not_end_the_next(
    kept: folder.Pieces, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    def fails() -> dict[str, Any]:
        assert json.loads((tmp_path / "ours" / "one.json").read_text()) == {"ms": 1}
        raise RuntimeError("CUDA says\nno")

    assert kept.keep("one", lambda: {"ms": 1})
    assert not kept.keep("two", fails)
    assert kept.keep("three", lambda: {"ms": 3})
    assert kept.status == 1
    assert kept.folder.pieces("ours") == {
        "one": {"ms": 1},
        "two": {"failed": "RuntimeError: CUDA says no"},
        "three": {"ms": 3},
    }
    assert "two: RuntimeError: CUDA says no" in capsys.readouterr().out


def test_a_piece_that_is_there_is_not_found_again_and_one_that_is_damaged_is(
    kept: folder.Pieces, tmp_path: Path
) -> None:
    kept.keep("one", lambda: {"ms": 1})
    kept.keep("one", lambda: {"ms": 2})
    assert kept.folder.piece("ours", "one") == {"ms": 1}
    for damage in (b"{", b"\xff", b"[1]", b""):
        (tmp_path / "ours" / "one.json").write_bytes(damage)
        assert not folder.is_well(kept.folder.piece("ours", "one"))
        assert kept.keep("one", lambda: {"ms": 3})
        assert kept.folder.piece("ours", "one") == {"ms": 3}


def test_a_file_is_written_whole_or_not_at_all(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Killed in the midst of writing, what was there before is still there, whole."""
    folder.write(tmp_path / "one.json", {"ms": 1})
    right = Path.write_text

    def half(self: Path, text: str, *arguments: Any) -> int:
        right(self, text[: len(text) // 2], *arguments)
        raise Gone

    monkeypatch.setattr(Path, "write_text", half)
    with pytest.raises(Gone):
        folder.write(tmp_path / "one.json", {"ms": 2})
    assert folder.read(tmp_path / "one.json") == {"ms": 1}
    assert [path.name for path in tmp_path.iterdir()] == ["one.json"]


def test_faults_that_a_log_tells_of_are_counted_before_it_was_cut(tmp_path: Path) -> None:
    """A sanitizer that is slow, or tests, may have found something."""
    at = folder.Folder(tmp_path)
    at.log("tests").write_text("tests/a.py::one PASSED [1%]\ntests/a.py::two[x y] FAILED [2%]\ntests/a.py::three\n")
    at.log("memcheck").write_text("========= COMPUTE-SANITIZER\n========= Invalid __global__ read of size 4 bytes\n")
    found = {name: runner.outcome_of(parts.BY_NAME[name], at, None, 1).said for name in ("tests", "memcheck")}
    assert all("1 faults before that" in said for said in found.values()), found


@pytest.mark.parametrize("text", ["", "[]", '{"parts": 3}', '{"parts": ["gone", "ours"]}', "\xff"])
def test_a_folder_that_is_damaged_is_summed_up_all_the_same(tmp_path: Path, text: str) -> None:
    (tmp_path / "asked.json").write_text(text, "latin-1")
    for name in ("ours.json", "gone.json"):
        (tmp_path / name).write_text(text, "latin-1")
    shown = CliRunner().invoke(gpu_check.main, ["--summary", str(tmp_path)])
    assert shown.exit_code == 1
    assert shown.exception is None or isinstance(shown.exception, SystemExit)


def test_the_environment_is_handed_on(tmp_path: Path) -> None:
    assert parts.BY_NAME["tests"].environment == {"RESNET_REF_NEEDS_GPU": "1"}
    runner.ended(["sh", "-c", "echo $RESNET_REF_NEEDS_GPU-$HOME"], {"RESNET_REF_NEEDS_GPU": "1"}, tmp_path / "l", LONG)
    assert (tmp_path / "l").read_text().strip() == f"1-{os.environ.get('HOME', '')}"
