"""Whenever a writer is killed, the disk is full or two write at once: a whole file is there, and no litter stays."""

import os
import shutil
import signal
import subprocess
import sys
import tarfile
import textwrap
import time
from collections.abc import Iterator
from pathlib import Path

import needs
import pytest
from conftest import RECORDING
from test_cli import narrow_checkpoint

from resnet_ref import load_weights, save_weights
from resnet_ref.recording import open_recording
from resnet_ref.weights.atomic import replacing
from resnet_ref.weights_file import DIGITS

# Writes again and again, with every number 1, then 2, and so on; says how many seconds the first took.
WRITER = """
    import sys, time
    import numpy as np
    from resnet_ref import load_weights, save_weights
    weights = load_weights()
    for number in range(1, 1_000_000):
        filled = {name: np.full_like(array, number) for name, array in weights.items()}
        began = time.monotonic()
        save_weights(sys.argv[1], filled, weights.network)
        if number == 1:
            print(time.monotonic() - began, flush=True)
"""


@pytest.fixture(scope="module")
def checkpoint(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return narrow_checkpoint(tmp_path_factory.mktemp("checkpoint"))


def converting(checkpoint: Path, destination: Path) -> "subprocess.Popen[str]":
    code = "from resnet_ref.cli import main; main()"
    command = [sys.executable, "-c", code, "convert", "--force", checkpoint, destination]
    return subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)


def numbers(path: Path) -> set[float]:
    """All that there are in a whole file."""
    return {float(value) for array in load_weights(path).values() for value in (array.min(), array.max())}


def litter(folder: Path) -> list[str]:
    return [name for name in os.listdir(folder) if name.endswith(".part")]


@needs.LOCKS
@pytest.mark.slow
def test_a_writer_killed_at_any_point_leaves_a_whole_file_and_the_next_removes_its_litter(tmp_path: Path) -> None:
    """20 times, each a little later, within the second write or the third."""
    path = tmp_path / "w.h5"
    littered = 0
    for step in range(20):
        command = [sys.executable, "-c", textwrap.dedent(WRITER), str(path)]
        with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as writer:
            assert writer.stdout is not None
            whole = float(writer.stdout.readline())
            time.sleep(whole * 0.1 * step)
            writer.kill()
        assert len(litter(tmp_path)) <= 1  # the one before has been removed
        littered += len(litter(tmp_path))
        assert len(numbers(path)) == 1
    assert littered >= 1  # else nothing was killed in the middle
    with replacing(path) as part:
        part.write_text("new")
    assert os.listdir(tmp_path) == ["w.h5"]


@needs.LOCKS
@pytest.mark.slow
def test_convert_killed_at_any_point_leaves_the_old_file_or_the_new_one(tmp_path: Path, checkpoint: Path) -> None:
    """Each a little later than the one before, until one has ended by itself; then once more, to its end."""
    path = tmp_path / "w.h5"
    converting(checkpoint, path).communicate()
    old = path.read_bytes()
    started = time.monotonic()
    converting(checkpoint, path).communicate()
    whole = time.monotonic() - started
    for step in range(12):
        process = converting(checkpoint, path)
        time.sleep(whole * (0.6 + 0.04 * step))
        process.kill()
        process.communicate()
        assert path.read_bytes() == old  # the new one is equal, and never half of it
    process = converting(checkpoint, path)
    process.communicate()
    assert process.returncode == 0
    assert os.listdir(tmp_path) == ["w.h5"]


@needs.OPEN_FILES
def test_of_two_converters_at_once_one_wins_whole_and_neither_takes_the_others_file(
    tmp_path: Path, checkpoint: Path
) -> None:
    path = tmp_path / "w.h5"
    for _ in range(3):
        both = [converting(checkpoint, path) for _ in range(2)]
        for process in both:
            assert (process.communicate()[1], process.returncode) == ("", 0)
        assert load_weights(path).network.num_classes is not None
        assert os.listdir(tmp_path) == ["w.h5"]


@needs.LOCKS
def test_several_writers_of_one_name_never_leave_a_mixture(tmp_path: Path) -> None:
    path = tmp_path / "w.h5"
    command = [sys.executable, "-c", textwrap.dedent(WRITER), str(path)]
    writers = [subprocess.Popen(command, stdout=subprocess.PIPE, text=True) for _ in range(3)]
    try:
        for writer in writers:
            assert writer.stdout is not None
            writer.stdout.readline()
        for _ in range(40):
            assert len(numbers(path)) == 1  # also where another took its name while it was read
        assert all(writer.poll() is None for writer in writers)
    finally:
        for writer in writers:
            writer.kill()
            writer.communicate()
    with replacing(path):
        pass
    assert os.listdir(tmp_path) == ["w.h5"]


@needs.LOCKS
def test_a_file_is_read_while_its_writer_still_locks_it(tmp_path: Path) -> None:
    """As for a moment after the file was given its name."""
    import fcntl

    weights, recording = shutil.copy(DIGITS, tmp_path), shutil.copy(RECORDING, tmp_path)
    with open(weights, "rb") as one, open(recording, "rb") as other:
        fcntl.flock(one, fcntl.LOCK_EX)
        fcntl.flock(other, fcntl.LOCK_EX)
        assert load_weights(weights).network
        with open_recording(recording) as opened:
            assert opened.facts.network


def test_what_a_living_process_writes_is_not_litter(tmp_path: Path) -> None:
    path = tmp_path / "w.h5"
    with replacing(path) as first:
        first.write_text("first")
        with replacing(path) as second:
            second.write_text("second")
            assert first.exists()
        assert path.read_text() == "second"
    assert path.read_text() == "first"


@needs.PIPES
def test_only_what_was_to_become_the_same_file_is_removed(tmp_path: Path) -> None:
    kept = [".w.h5.0123.part", ".v.h5.0123456789ab.part", ".w.h5.0123456789ab.part2", "w.h5.0123456789ab.part"]
    for name in [*kept, ".w.h5.0123456789ab.part"]:
        (tmp_path / name).touch()
    (tmp_path / ".w.h5.aaaaaaaaaaaa.part").symlink_to(tmp_path / kept[0])
    (tmp_path / ".w.h5.bbbbbbbbbbbb.part").mkdir()
    os.mkfifo(tmp_path / ".w.h5.cccccccccccc.part")
    with replacing(tmp_path / "w.h5"):
        pass
    left = [*kept, ".w.h5.aaaaaaaaaaaa.part", ".w.h5.bbbbbbbbbbbb.part", ".w.h5.cccccccccccc.part", "w.h5"]
    assert sorted(os.listdir(tmp_path)) == sorted(left)


@needs.LOCKS
def test_a_file_taken_for_litter_before_it_was_locked_is_made_anew(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from resnet_ref.weights import atomic

    really = atomic.locked
    taken: list[Path] = []

    def late(descriptor: int, wait: bool = False) -> bool:
        if wait and not taken:
            taken.extend(tmp_path.glob(".w.h5.*.part"))
            taken[0].unlink()
        return really(descriptor, wait)

    monkeypatch.setattr(atomic, "locked", late)
    with replacing(tmp_path / "w.h5") as part:
        part.write_text("new")
    assert taken
    assert (tmp_path / "w.h5").read_text() == "new"


@pytest.fixture
def small_disk(tmp_path: Path) -> Iterator[Path]:
    """A file system of 300 kB."""
    place = tmp_path / "disk"
    place.mkdir()
    mounted = subprocess.run(
        ["mount", "-t", "tmpfs", "-o", "size=300k", "tmpfs", place], capture_output=True, check=False
    )
    if mounted.returncode:
        pytest.skip("only root may mount a file system; test_atomic limits a file's size instead")
    yield place
    subprocess.run(["umount", "-l", place], check=True)


@needs.UNIX
def test_a_full_disk_is_one_line_and_the_old_file_is_there(small_disk: Path, checkpoint: Path) -> None:
    path = small_disk / "w.h5"
    path.write_bytes(b"old" * 80_000)
    process = converting(checkpoint, path)
    out, err = process.communicate()
    assert (process.returncode, out) == (2, "")
    assert err == f"resnet-ref: cannot write {path}: No space left on device; nothing was changed\n"
    assert path.read_bytes() == b"old" * 80_000
    assert os.listdir(small_disk) == ["w.h5"]


@needs.SIGNALS
def test_whoever_is_terminated_removes_what_it_began(tmp_path: Path) -> None:
    path = tmp_path / "w.h5"
    script = f"""
        import signal, sys
        from resnet_ref.weights.atomic import replacing
        signal.signal(signal.SIGTERM, lambda number, frame: sys.exit(143))
        with replacing({str(path)!r}):
            print("ready", flush=True)
            signal.pause()
    """
    with subprocess.Popen([sys.executable, "-c", textwrap.dedent(script)], stdout=subprocess.PIPE, text=True) as writer:
        assert writer.stdout is not None
        writer.stdout.readline()
        assert len(litter(tmp_path)) == 1
        writer.send_signal(signal.SIGTERM)
        assert writer.wait() == 143
    assert os.listdir(tmp_path) == []


SAVING = """
    import signal, sys
    from resnet_ref import load_weights, save_weights
    signal.signal(signal.SIGINT, signal.default_int_handler)  # which a parent may have switched off
    digits = load_weights()
    print("ready", flush=True)
    try:
        while True:
            save_weights(sys.argv[1], digits, digits.network)
    except KeyboardInterrupt:
        sys.exit(130)
"""


@needs.SIGNALS
def test_ctrl_c_while_hdf5_writes_is_neither_lost_nor_the_end_of_the_interpreter(tmp_path: Path) -> None:
    """HDF5 calls Python back for each write; what is raised there, it drops, or dies of."""
    digits = load_weights()
    save_weights(tmp_path / "w.h5", digits, digits.network)
    for number in range(8):
        command = [sys.executable, "-c", textwrap.dedent(SAVING), str(tmp_path / "w.h5")]
        with subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True) as process:
            assert process.stdout is not None
            assert process.stderr is not None
            assert process.stdout.readline() == "ready\n"
            time.sleep(0.02 + 0.011 * number)
            process.send_signal(signal.SIGINT)
            try:
                assert process.wait(300) == 130
                assert process.stderr.read() == ""
            finally:
                process.kill()
        assert [path.name for path in tmp_path.iterdir()] == ["w.h5"]
        load_weights(tmp_path / "w.h5")


# Opens an archive and stays in it, or is killed there.
UNPACKER = """
    import sys, time
    from resnet_ref.weights.checkpoint import open_checkpoint
    with open_checkpoint(sys.argv[1]):
        print("open", flush=True)
        time.sleep(60)
"""


@needs.LOCKS
def test_what_a_killed_process_unpacked_is_removed_by_the_next_and_a_living_ones_is_not(
    tmp_path: Path, checkpoint: Path
) -> None:
    archive, scratch = tmp_path / "model.tar.gz", tmp_path / "scratch"
    scratch.mkdir()
    (stranger := scratch / "resnet-ref-unpacked").mkdir()
    with tarfile.open(archive, "w:gz") as tar:
        for file in checkpoint.parent.glob(f"{checkpoint.name}*"):
            tar.add(file, file.name)

    def unpacking() -> "subprocess.Popen[str]":
        command = [sys.executable, "-c", textwrap.dedent(UNPACKER), str(archive)]
        made = subprocess.Popen(command, stdout=subprocess.PIPE, text=True, env={**os.environ, "TMPDIR": str(scratch)})
        assert made.stdout is not None
        assert made.stdout.readline() == "open\n"
        return made

    with unpacking() as living:
        (alive,) = set(scratch.iterdir()) - {stranger}
        with unpacking() as killed:
            killed.kill()
        (dead,) = set(scratch.iterdir()) - {stranger, alive}
        assert len(list(dead.iterdir())) == 2
        with unpacking() as last:
            assert not dead.exists()
            assert len(list(alive.iterdir())) == 2
            last.terminate()
        living.kill()
