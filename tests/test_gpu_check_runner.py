"""How benchmarks/gpu_check.py runs its parts: whatever one of them does, the others' results are there, and the summary
and the exit status say what happened. The parts here are shell scripts in the place of the real ones."""

import dataclasses
import json
import shlex
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import gpu_results
import pytest
from click.testing import CliRunner
from gpu_results import figures, folder, gpu_check, parts, runner, summary

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


class Gone(BaseException):
    """Stands for the machine's end."""


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
