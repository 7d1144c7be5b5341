"""A file that is being written is there whole or not at all, whatever happens meanwhile."""

import os
import stat
import subprocess
import sys
import textwrap
from pathlib import Path
from typing import Any

import needs
import numpy.typing as npt
import pytest
from test_store import ARRAYS, DESCRIPTION, write

from resnet_ref.errors import WeightsError
from resnet_ref.weights import store
from resnet_ref.weights.atomic import replacing


@pytest.fixture
def file(tmp_path: Path) -> Path:
    return write(tmp_path / "weights.h5")


@pytest.mark.parametrize("error", [RuntimeError, KeyboardInterrupt, MemoryError])
def test_an_interrupted_write_leaves_the_old_file_and_no_litter(file: Path, error: type[BaseException]) -> None:
    before = file.read_bytes()

    def read(name: str) -> npt.NDArray[Any]:
        if name == sorted(ARRAYS)[1]:
            raise error
        return ARRAYS[name] + 1

    with pytest.raises(error):
        store.write(file, ARRAYS, read, DESCRIPTION)
    assert file.read_bytes() == before
    assert os.listdir(file.parent) == [file.name]


@needs.RESOURCE
def test_a_full_disk_is_a_weights_error_that_leaves_the_old_file_and_no_litter(file: Path) -> None:
    """In a process of its own, whose files may not grow beyond 40 kB."""
    script = f"""
        import resource, sys
        import numpy as np
        from resnet_ref.errors import WeightsError
        from resnet_ref.weights import store
        from resnet_ref.weights.description import Description
        resource.setrlimit(resource.RLIMIT_FSIZE, (40_000, 40_000))
        try:
            store.write({str(file)!r}, ["a", "b"], lambda name: np.ones(100_000), Description({{}}))
        except WeightsError as error:
            sys.exit(0 if "cannot write" in str(error) else f"{{error}}")
        sys.exit("no error")
    """
    before = file.read_bytes()
    done = subprocess.run([sys.executable, "-c", textwrap.dedent(script)], capture_output=True, text=True, check=False)
    assert (done.returncode, done.stderr) == (0, "")
    assert file.read_bytes() == before
    assert os.listdir(file.parent) == [file.name]


@needs.UNIX
def test_a_place_that_cannot_be_written_is_named(tmp_path: Path, file: Path) -> None:
    for path, said in [
        (tmp_path, "is a directory"),
        (tmp_path / "none" / "w.h5", "No such file or directory"),
        (file / "w.h5", "Not a directory"),
        (Path("/sys/w.h5"), "cannot write /sys/w.h5"),
    ]:
        with pytest.raises(WeightsError, match=said):
            write(path)


def test_a_name_that_is_too_long_is_a_weights_error(tmp_path: Path) -> None:
    with pytest.raises(WeightsError, match="File name too long"):
        write(tmp_path / ("x" * 300))


@needs.MODES
@pytest.mark.parametrize(("umask", "mode"), [(0o022, 0o644), (0o077, 0o600), (0o002, 0o664)])
def test_the_files_permissions_follow_the_umask(tmp_path: Path, umask: int, mode: int) -> None:
    old = os.umask(umask)
    try:
        path = write(tmp_path / "w.h5")
    finally:
        os.umask(old)
    assert stat.S_IMODE(path.stat().st_mode) == mode


def test_replacing_shows_the_new_content_only_when_the_block_has_ended(tmp_path: Path) -> None:
    (target := tmp_path / "t").write_text("old")
    with replacing(target) as part:
        part.write_text("new")
        assert target.read_text() == "old"
        assert part.parent == target.parent
    assert target.read_text() == "new"
    assert os.listdir(tmp_path) == ["t"]


@needs.LOCKS
def test_whoever_is_ended_as_the_new_file_appears_leaves_none(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A signal raises SystemExit between any two lines; here right after the file was made."""

    def ended(descriptor: int) -> None:
        raise SystemExit(143)

    with monkeypatch.context() as patch:
        patch.setattr("resnet_ref.weights.atomic.os.close", ended)
        with pytest.raises(SystemExit), replacing(tmp_path / "a.txt"):
            pass
    assert list(tmp_path.iterdir()) == []


@needs.FORK
def test_what_no_finally_covers_is_removed_at_the_exit_of_its_own_process_alone(tmp_path: Path) -> None:
    """Run as Python runs it at its exit: in a forked child the parent's file stays, in the parent it goes."""
    code = """
        import atexit, os, sys
        from resnet_ref.weights.atomic import replacing
        held = replacing(sys.argv[1])
        part = held.__enter__()
        child = os.fork()
        if child == 0:
            atexit._run_exitfuncs()
            os._exit(0 if part.exists() else 1)
        stayed = os.waitpid(child, 0)[1] == 0
        atexit._run_exitfuncs()
        os._exit(0 if stayed and not part.exists() else 1)
    """
    command = [sys.executable, "-c", textwrap.dedent(code), tmp_path / "a.txt"]
    assert subprocess.run(command, check=False).returncode == 0
