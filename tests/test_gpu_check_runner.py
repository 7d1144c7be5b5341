"""How benchmarks/gpu_check.py runs its parts: whatever one of them does, the others' results are there, and the summary
and the exit status say what happened. The parts here are shell scripts in the place of the real ones."""

import dataclasses
import json
import os
import shlex
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import gpu_results
import pytest
from click.testing import CliRunner

BENCHMARKS = Path(__file__).parents[1] / "benchmarks"
sys.path.insert(0, str(BENCHMARKS))
import gpu_check  # noqa: E402
from gpu import figures, folder, parts, runner, summary  # noqa: E402

sys.path.remove(str(BENCHMARKS))
SCRIPTS = SimpleNamespace(folder=folder, parts=parts)
USUAL = [part for part in parts.PARTS if part.is_usual]
NAMES = [part.name for part in USUAL]
LONG = 600  # seconds that no test lasts


@pytest.fixture(autouse=True)
def whole(monkeypatch: pytest.MonkeyPatch) -> None:
    """A machine that lacks nothing."""
    monkeypatch.setattr(runner, "missing", dict)
    monkeypatch.setattr(gpu_check, "missing", dict)


@pytest.fixture
def well(tmp_path: Path) -> list[parts.Part]:
    """The parts as shell scripts that leave what the real ones have to."""
    return [scripted(part, good(part, tmp_path / "source")) for part in USUAL]


def good(part: parts.Part, source: Path) -> str:
    place = gpu_results.lay(source, part)
    return f"mkdir -p $FOLDER && cp -r {shlex.quote(str(place))} $FOLDER && echo well"


def scripted(part: parts.Part, script: str, seconds: float = LONG) -> parts.Part:
    """The part with a shell script for its process."""

    def command(into: folder.Folder) -> list[str]:
        return ["sh", "-c", f"FOLDER={shlex.quote(str(into.path))}; {script}"]

    return dataclasses.replace(part, command=command, seconds=seconds)


def checked(
    given: list[parts.Part], output: Path, monkeypatch: pytest.MonkeyPatch, seconds: float = LONG, again: bool = False
) -> int:
    """gpu_check with these parts; its status."""
    monkeypatch.setattr(gpu_check, "VERSIONS", given[0])
    return gpu_check.checked(given, seconds, output, again)


def pieces_left(output: Path, name: str) -> bool:
    """Whether all pieces that a part has to leave are there and whole."""
    at = folder.Folder(output)
    wanted = parts.BY_NAME[name].pieces
    return all(at.piece(name, piece) == gpu_results.piece(name, piece) for piece in wanted)


def row(output: Path, name: str) -> str:
    """What the summary says of a part."""
    return next(line for line in summary.text(folder.Folder(output)).splitlines() if line.startswith(f"{name} "))


def test_where_every_part_is_well_the_status_is_0(
    well: list[parts.Part], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    assert checked(well, tmp_path / "o", monkeypatch) == 0
    assert all(pieces_left(tmp_path / "o", name) for name in NAMES)
    assert figures.all_well(folder.Folder(tmp_path / "o"), NAMES)
    assert all(row(tmp_path / "o", name).split()[1] == "ok" for name in NAMES)
    assert not list((tmp_path / "o").rglob("*.part"))


FAULTS = {
    "it fails": ("echo first; echo broken; exit 3", "FAILED", "status 3; last words: broken"),
    "it dies": ("echo words; kill -SEGV $$", "FAILED", "ended by SIGSEGV; last words: words"),
    "it is killed": ("kill -KILL $$", "FAILED", "ended by SIGKILL"),
    "it does nothing and says that it is well": ("exit 0", "FAILED", "it says it is well, and "),
    "it leaves garbage": (
        r"mkdir -p $FOLDER/$NAME; for p in $PIECES; do printf '{\377\0' > $FOLDER/$NAME/$p.json; done; "
        r"head -c 5000 /dev/urandom; printf '\n\033[31m\377\0 last'; exit 0",
        "FAILED",
        "it says it is well, and ",
    ),
    "it fails in a piece": (
        'mkdir -p $FOLDER/$NAME; for p in $PIECES; do echo \'{"failed": "differs"}\' > $FOLDER/$NAME/$p.json; done; '
        "exit 1",
        "FAILED",
        "status 1",
    ),
}


@pytest.mark.parametrize("name", NAMES)
@pytest.mark.parametrize("fault", FAULTS)
def test_a_part_that_goes_wrong_loses_no_other(
    well: list[parts.Part], tmp_path: Path, monkeypatch: pytest.MonkeyPatch, name: str, fault: str
) -> None:
    script, state, said = FAULTS[fault]
    number = NAMES.index(name)
    setting = f"NAME={name}; PIECES={shlex.quote(' '.join(well[number].pieces))}; "
    well[number] = scripted(well[number], setting + script)
    if script.endswith("exit 0") and not well[number].pieces:
        state, said = "ok", ""  # it has nothing to leave, and its status is all there is
    status = checked(well, tmp_path / "o", monkeypatch)
    assert status == (0 if state == "ok" else 1)
    found = folder.Folder(tmp_path / "o").outcome(name)
    assert found.state == state
    assert said in found.said
    assert found.said.isprintable()
    assert row(tmp_path / "o", name).split()[1] == state
    for other in set(NAMES) - {name}:
        assert folder.Folder(tmp_path / "o").outcome(other).state == "ok", other
        assert pieces_left(tmp_path / "o", other), other
    assert figures.all_well(folder.Folder(tmp_path / "o"), NAMES) == (state == "ok")


@pytest.mark.parametrize("name", NAMES)
def test_a_part_that_hangs_is_ended_and_the_next_begins(
    well: list[parts.Part], tmp_path: Path, monkeypatch: pytest.MonkeyPatch, name: str
) -> None:
    number = NAMES.index(name)
    well[number] = scripted(well[number], "while :; do sleep 1000; done", 0.2)
    assert checked(well, tmp_path / "o", monkeypatch) == 1
    found = folder.Folder(tmp_path / "o").outcome(name)
    assert (found.state, found.limit) == ("CUT", 0.2)
    assert "its limit" in found.said
    assert all(pieces_left(tmp_path / "o", other) for other in set(NAMES) - {name})
    assert row(tmp_path / "o", name).split()[1] == "CUT"


@pytest.mark.parametrize("name", [part.name for part in USUAL if len(part.pieces) > 1])
def test_a_part_that_is_too_slow_leaves_what_it_had(
    well: list[parts.Part], tmp_path: Path, monkeypatch: pytest.MonkeyPatch, name: str
) -> None:
    """Its time is up, so the fake `ended` says, when its first piece is there."""
    number, (first, *others) = NAMES.index(name), parts.BY_NAME[name].pieces
    source = shlex.quote(str(tmp_path / "source" / name / f"{first}.json"))
    well[number] = scripted(well[number], f"mkdir -p $FOLDER/{name} && cp {source} $FOLDER/{name} && echo {first}: ok")

    def ended(command: Any, environment: Any, log: Path, limit: float) -> int | None:
        status = runner.ended(command, environment, log, limit)
        return None if log.stem == name else status

    monkeypatch.setattr(runner.Runner.__init__, "__defaults__", (ended, time.monotonic))
    assert checked(well, tmp_path / "o", monkeypatch) == 1
    kept = folder.Folder(tmp_path / "o")
    assert kept.piece(name, first) == gpu_results.piece(name, first)
    assert f"last words: {first}: ok" in kept.outcome(name).said
    assert f"1 of {len(others) + 1}" in row(tmp_path / "o", name)
    assert all(pieces_left(tmp_path / "o", other) for other in set(NAMES) - {name})


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


@pytest.mark.skipif(not Path("/proc").exists(), reason="children are looked for in /proc")
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


@pytest.mark.skipif(not Path("/proc").exists(), reason="children are looked for in /proc")
def test_what_dies_leaves_no_child_behind(tmp_path: Path) -> None:
    script = f"sleep 1000 & echo $! > {tmp_path / 'number'}; kill -KILL $$"
    assert runner.ended(["sh", "-c", script], {}, tmp_path / "log", LONG) == -signal.SIGKILL
    until(lambda: gone(int((tmp_path / "number").read_text())))


def test_a_program_that_is_not_there_is_a_failure(tmp_path: Path) -> None:
    assert runner.ended(["/nowhere/tool"], {}, tmp_path / "log", LONG) == 127
    assert "cannot be started" in (tmp_path / "log").read_text()


class Clocked:
    """An `end` in which every part takes its time by a clock of its own, or is ended; `limits`: those it was given."""

    def __init__(self, takes: dict[str, float], source: Path) -> None:
        self.now, self.takes, self.source = 0.0, takes, source
        self.limits: dict[str, float] = {}

    def clock(self) -> float:
        return self.now

    def end(self, command: Any, environment: Any, log: Path, limit: float) -> int | None:
        self.limits[log.stem] = limit
        takes = self.takes.get(log.stem, 1.0)
        self.now += min(takes, limit)
        log.write_text("well\n")
        if takes > limit:
            return None
        return runner.ended(command, environment, log, LONG)


@pytest.fixture
def clocked(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Callable[..., Clocked]:
    def make(**takes: float) -> Clocked:
        made = Clocked(takes, tmp_path / "source")
        monkeypatch.setattr(runner.Runner.__init__, "__defaults__", (made.end, made.clock))
        return made

    return make


def limited(well: list[parts.Part]) -> list[parts.Part]:
    """With the seconds that the real parts have."""
    return [dataclasses.replace(part, seconds=real.seconds) for part, real in zip(well, USUAL, strict=True)]


def test_parts_that_no_longer_fit_are_cut_to_what_is_left_or_skipped(
    well: list[parts.Part], tmp_path: Path, monkeypatch: pytest.MonkeyPatch, clocked: Any
) -> None:
    made = clocked(versions=5, kernels=20, ours=500)
    assert checked(limited(well), tmp_path / "o", monkeypatch, seconds=145) == 1
    # 5 + 20 are spent when ours begins with its own 100, and pytorch has the 20 that are left.
    assert made.limits["ours"] == parts.BY_NAME["ours"].seconds == 100
    assert made.limits["pytorch"] == 145 - 5 - 20 - 100
    made.takes["pytorch"] = 500
    states = {name: folder.Folder(tmp_path / "o").outcome(name).state for name in NAMES}
    assert states["ours"] == "CUT"
    assert states["pytorch"] == "ok"
    again = clocked(versions=5, kernels=20, ours=500, pytorch=500)
    assert checked(limited(well), tmp_path / "p", monkeypatch, seconds=145) == 1
    at = folder.Folder(tmp_path / "p")
    assert again.limits.keys() == {"versions", "kernels", "ours", "pytorch"}
    assert at.outcome("pytorch").said.startswith("ended after 20 s, all that was left")
    assert all(at.outcome(name).state == "SKIPPED" for name in NAMES[4:])
    assert at.outcome("tests").said == "0 of 145 seconds were left"
    assert row(tmp_path / "p", "memcheck").split()[1] == "SKIPPED"


def test_all_that_is_usual_but_the_ladder_fits_whole_into_nine_minutes() -> None:
    assert NAMES == ["versions", "kernels", "ours", "pytorch", "tests", "memcheck", "racecheck", "ladder"]
    assert sum(part.seconds for part in USUAL[:-1]) <= 540 - 60
    assert "by --only" in gpu_check.listed()
    assert all(
        f"{part.name} " in gpu_check.listed() and str(part.seconds) in gpu_check.listed() for part in parts.PARTS
    )


def test_another_run_goes_on_with_what_is_missing(
    well: list[parts.Part], tmp_path: Path, monkeypatch: pytest.MonkeyPatch, clocked: Any
) -> None:
    first = clocked(tests=10_000)
    assert checked(limited(well), tmp_path / "o", monkeypatch) == 1
    assert first.limits.keys() == set(NAMES)
    alone = clocked()
    assert checked(limited(well)[:2], tmp_path / "o", monkeypatch) == 0
    assert alone.limits.keys() == {"versions"}
    assert folder.Folder(tmp_path / "o").asked() == NAMES, "what was asked for before is not forgotten"
    second = clocked()
    assert checked(limited(well), tmp_path / "o", monkeypatch) == 0
    assert second.limits.keys() == {"versions", "tests"}
    third = clocked()
    assert checked(limited(well), tmp_path / "o", monkeypatch, again=True) == 0
    assert third.limits.keys() == set(NAMES)


def test_a_part_that_no_time_is_left_for_keeps_what_an_earlier_run_said_of_it(
    well: list[parts.Part], tmp_path: Path, monkeypatch: pytest.MonkeyPatch, clocked: Any
) -> None:
    clocked(ours=10_000)
    checked(limited(well), tmp_path / "o", monkeypatch)
    clocked(versions=25)
    assert checked(limited(well), tmp_path / "o", monkeypatch, seconds=30) == 1
    assert folder.Folder(tmp_path / "o").outcome("ours").state == "CUT"


class Gone(BaseException):
    """Stands for the machine's end."""


@pytest.mark.parametrize("name", NAMES[1:])
def test_a_machine_that_is_taken_away_leaves_what_was_found_and_what_it_was_at(
    well: list[parts.Part], tmp_path: Path, monkeypatch: pytest.MonkeyPatch, name: str
) -> None:
    def ended(command: Any, environment: Any, log: Path, limit: float) -> int | None:
        if log.stem == name:
            raise Gone
        return runner.ended(command, environment, log, limit)

    monkeypatch.setattr(runner.Runner.__init__, "__defaults__", (ended, time.monotonic))
    with pytest.raises(Gone):
        checked(well, tmp_path / "o", monkeypatch)
    number = NAMES.index(name)
    assert all(pieces_left(tmp_path / "o", other) for other in NAMES[:number])
    assert "it was at work when the run ended" in row(tmp_path / "o", name)
    assert all("never began" in row(tmp_path / "o", other) for other in NAMES[number + 1 :])
    shown = CliRunner().invoke(gpu_check.main, ["--summary", str(tmp_path / "o")])
    assert shown.exit_code == 1
    assert shown.output.startswith("NVIDIA H200\n")
    monkeypatch.setattr(runner.Runner.__init__, "__defaults__", (runner.ended, time.monotonic))
    assert checked(well, tmp_path / "o", monkeypatch) == 0
    assert CliRunner().invoke(gpu_check.main, ["--summary", str(tmp_path / "o")]).exit_code == 0


@pytest.mark.skipif(not Path("/proc").exists(), reason="children are looked for in /proc")
@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT, signal.SIGHUP])
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


def test_what_lacks_something_is_said_in_one_line_and_the_rest_is_done(
    well: list[parts.Part], tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    lacking = {"PyTorch": "pytorch.org", "compute-sanitizer": "the toolkit"}
    monkeypatch.setattr(runner, "missing", lambda: lacking)
    monkeypatch.setattr(gpu_check, "missing", lambda: lacking)
    assert checked(well, tmp_path / "o", monkeypatch) == 1
    assert "missing here: PyTorch (pytorch.org); compute-sanitizer (the toolkit)\n" in capsys.readouterr().out
    states = {name: folder.Folder(tmp_path / "o").outcome(name).state for name in NAMES}
    assert {name for name, state in states.items() if state == "MISSING"} == {"pytorch", "memcheck", "racecheck"}
    assert all(state in ("ok", "MISSING") for state in states.values())
    assert "PyTorch is missing: pytorch.org" in row(tmp_path / "o", "pytorch")


def test_where_only_what_is_here_is_asked_for_the_status_is_0_without_bars(
    well: list[parts.Part], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    assert checked([well[0], well[2]], tmp_path / "o", monkeypatch) == 0
    assert "bar" not in summary.text(folder.Folder(tmp_path / "o"))
    assert "never began" not in summary.text(folder.Folder(tmp_path / "o"))


def test_results_of_another_device_or_of_other_sources_are_not_mixed(
    well: list[parts.Part], tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    checked(well[:2], tmp_path / "o", monkeypatch)
    for what, other in (("device", "NVIDIA A100"), ("sources", "s2")):
        here = {**gpu_results.piece("versions", "device"), what: other}
        (tmp_path / "source" / "versions" / "device.json").write_text(json.dumps(here))
        capsys.readouterr()
        with pytest.raises(SystemExit) as ended:
            checked(well[:2], tmp_path / "o", monkeypatch)
        assert ended.value.code == 2
        err = capsys.readouterr().err
        assert f"this is {other}; give another folder" in err
        assert folder.Folder(tmp_path / "o").piece("versions", "device") == gpu_results.piece("versions", "device")


def test_the_folder_is_named_after_the_device(
    well: list[parts.Part], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(gpu_check, "RESULTS", tmp_path / "results")
    monkeypatch.setattr(gpu_check, "VERSIONS", well[0])
    assert gpu_check.checked(well[:1], LONG, None, False) == 0
    assert pieces_left(tmp_path / "results" / "gpu_nvidia_h200", "versions")


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


def test_faults_that_a_log_tells_of_are_counted_before_it_was_cut(
    well: list[parts.Part], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
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
