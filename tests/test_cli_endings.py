"""How the command line ends: the real script, pipes, odd file names, interruptions and failed checks."""

import importlib
import json
import os
import signal
import subprocess
import sys
import textwrap
from pathlib import Path
from typing import Any

import click
import needs
import numpy as np
import pytest
from conftest import TINY_LABELS, Run
from PIL import Image

from resnet_ref import VerificationError

SCRIPT = Path(sys.executable).with_name("resnet-ref")
classify = importlib.import_module("resnet_ref.cli.classify")


def process(*arguments: object, **options: Any) -> subprocess.CompletedProcess[str]:
    """The real console script, in a process of its own."""
    return subprocess.run([SCRIPT, *map(str, arguments)], capture_output=True, text=True, check=False, **options)


def heed_ctrl_c() -> None:
    """In a child, whose parent may have switched it off."""
    signal.signal(signal.SIGINT, signal.SIG_DFL)


def test_the_real_script_runs_and_ends_with_the_right_status(tiny_file: Path, photos: list[Path]) -> None:
    done = process("classify", photos[0], "--weights", tiny_file, "--json", "--device", "cpu")
    assert (done.returncode, done.stderr) == (0, "")
    assert json.loads(done.stdout)[0]["file"] == str(photos[0])
    failed = process("classify", "no such.png", "--weights", tiny_file, "--device", "cpu")
    assert (failed.returncode, failed.stdout, len(failed.stderr.splitlines())) == (2, "", 1)


@needs.UNIX
def test_a_reader_who_leaves_is_no_error(photos: list[Path], tiny_file: Path) -> None:
    """More is printed than a pipe holds, and its reader takes one line: the script ends quietly."""
    many = " ".join(["photo*.png"] * 400)
    command = (
        f'"{SCRIPT}" classify {many} --weights "{tiny_file}" --top 5 --device cpu | head -1; echo ${{PIPESTATUS[0]}}'
    )
    done = subprocess.run(["bash", "-c", command], capture_output=True, text=True, cwd=photos[0].parent, check=False)
    assert done.stderr == ""
    assert done.stdout.splitlines() == [photos[0].name, "0"]


@needs.UNIX
def test_an_output_that_takes_nothing_is_one_line_and_status_2() -> None:
    with open("/dev/full", "w") as full:
        done = subprocess.run([SCRIPT, "devices"], stdout=full, stderr=subprocess.PIPE, text=True, check=False)
    assert (done.returncode, len(done.stderr.splitlines())) == (2, 1)
    assert "No space left on device" in done.stderr


@needs.ODD_NAMES
@pytest.mark.parametrize("command", ["classify", "features"])
def test_a_file_name_that_is_no_text_is_taken_all_the_same(
    tiny_file: Path, photos: list[Path], tmp_path: Path, command: str
) -> None:
    odd = os.fsencode(tmp_path) + b"/\xff.png"
    with open(odd, "wb") as file:
        file.write(photos[0].read_bytes())
    output = ["-o", str(tmp_path / "f.h5")] if command == "features" else []
    line: list[Any] = [SCRIPT, command, odd, "--weights", tiny_file, "--device", "cpu", *output]
    done = subprocess.run(line, capture_output=True, check=False)
    assert (done.returncode, done.stderr) == (0, b"")


ODD = "日本 é 😀.png"


@pytest.mark.parametrize(("encoding", "shown"), [
    ("cp1252", "\\u65e5\\u672c é \\U0001f600.png"),
    ("koi8-r", "\\u65e5\\u672c \\xe9 \\U0001f600.png"),
    ("utf-8", ODD),
])  # fmt: skip
def test_a_name_that_the_terminal_cannot_show_is_escaped_and_json_stays_json(
    tiny_file: Path, photos: list[Path], tmp_path: Path, encoding: str, shown: str
) -> None:
    """On both streams, whatever prints it: lines, tables, JSON, errors."""
    (tmp_path / ODD).write_bytes(photos[0].read_bytes())
    (tmp_path / "no 日.png").write_bytes(b"no image")
    (tmp_path / "日.h5").write_bytes(tiny_file.read_bytes())
    files: dict[str, Any] = {"cwd": tmp_path, "env": {**os.environ, "PYTHONIOENCODING": encoding}}
    classifying = ("classify", ODD, "no 日.png", "--weights", "日.h5", "--device", "cpu")
    done = process(*classifying, encoding=encoding, **files)
    assert (done.returncode, done.stdout.splitlines()[0]) == (2, shown)
    assert done.stderr.startswith(f"resnet-ref: no {shown[0] if shown == ODD else shown[:6]}.png")
    assert len(done.stderr.splitlines()) == 1
    done = process(*classifying, "--json", encoding=encoding, **files)
    assert [found["file"] for found in json.loads(done.stdout)] == [ODD]
    assert json.loads(done.stdout)[0]["predictions"][0]["label"] in TINY_LABELS
    output = ("-o", "出.h5", "--weights", "日.h5", "--device", "cpu")
    done = process("features", ODD, *output, encoding=encoding, **files)
    assert (done.returncode, done.stderr) == (0, "")
    assert done.stdout.splitlines()[-1] == ("1 images -> 出.h5" if shown == ODD else "1 images -> \\u51fa.h5")
    for command in (("features", ODD, *output, "--json"), ("summary", "--weights", "日.h5", "--json")):
        done = process(*command, encoding=encoding, **files)
        assert (done.returncode, done.stderr) == (0, "")
        assert json.loads(done.stdout)
    done = process("verify", "日.h5", "no 録.h5", encoding=encoding, **files)
    assert (done.returncode, done.stdout, len(done.stderr.splitlines())) == (2, "", 1)
    assert process("summary", "--weights", "日.h5", encoding=encoding, **files).returncode == 0


def test_ctrl_c_is_one_word_and_status_130(run: Run, monkeypatch: pytest.MonkeyPatch, photos: list[Path]) -> None:
    for error in (KeyboardInterrupt(), click.Abort()):
        monkeypatch.setattr(classify, "open_fleet", lambda *a, error=error, **k: (_ for _ in ()).throw(error))
        status, out, err = run("classify", photos[0])
        assert (status, out) == (130, "")
        assert err.strip() == "resnet-ref: interrupted"


def test_ctrl_c_within_a_callback_is_not_lost() -> None:
    """Python drops what a weak reference's callback raises."""
    code = """
        import signal, sys, time, weakref
        from resnet_ref.cli import group
        signal.signal(signal.SIGINT, signal.default_int_handler)
        sys.unraisablehook = group._unraisable
        class Gone:
            pass
        gone = Gone()
        watched = weakref.ref(gone, lambda _: signal.raise_signal(signal.SIGINT))
        try:
            del gone
            print("dropped")
            time.sleep(20)
        except KeyboardInterrupt:
            print("and here again")
    """
    done = subprocess.run([sys.executable, "-c", textwrap.dedent(code)], capture_output=True, text=True, check=False)
    assert (done.stdout, done.stderr) == ("dropped\nand here again\n", "")


@needs.SIGNALS
def test_ctrl_c_while_everything_is_being_imported_is_one_word_and_status_130(tiny_file: Path, tmp_path: Path) -> None:
    """From the moment on that Python has come to our first line."""
    wait = tmp_path / "sitecustomize.py"
    for late in ("numpy", "h5py", "resnet_ref.export"):
        wait.write_text(
            "import os, signal, sys\n"
            "class Interrupt:\n"
            "    def find_spec(self, name, path, target=None):\n"
            f"        if name == {late!r}:\n"
            "            os.kill(os.getpid(), signal.SIGINT)\n"
            "sys.meta_path.insert(0, Interrupt())\n"
        )
        line = ("export", tiny_file, tmp_path / "w.safetensors")
        done = process(*line, env={**os.environ, "PYTHONPATH": str(tmp_path)}, preexec_fn=heed_ctrl_c)
        assert (done.returncode, done.stdout, done.stderr) == (130, "", "resnet-ref: interrupted\n"), late
    assert not (tmp_path / "w.safetensors").exists()


@needs.UNIX
def test_a_closed_stderr_keeps_nobody_from_the_answer(tiny_file: Path, photos: list[Path]) -> None:
    line = f'"{SCRIPT}" classify "{photos[0]}" --weights "{tiny_file}" --device cpu 2>&-'
    done = subprocess.run(["bash", "-c", line], capture_output=True, text=True, check=False)
    assert done.returncode == 0
    assert done.stdout.startswith(str(photos[0]))


def test_too_little_memory_is_one_line_with_advice(
    run: Run, monkeypatch: pytest.MonkeyPatch, photos: list[Path]
) -> None:
    monkeypatch.setattr(classify, "open_fleet", lambda *a, **k: (_ for _ in ()).throw(MemoryError("9 GiB")))
    status, out, err = run("classify", photos[0])
    assert (status, out) == (2, "")
    assert err == (
        "resnet-ref: not enough memory (9 GiB); fewer images at a time, or smaller images or files, need less\n"
    )


def test_a_failed_check_is_status_1(run: Run, monkeypatch: pytest.MonkeyPatch, photos: list[Path]) -> None:
    monkeypatch.setattr(classify, "open_fleet", lambda *a, **k: (_ for _ in ()).throw(VerificationError("a\nb")))
    assert run("classify", photos[0]) == (1, "", "resnet-ref: a b\n")


@needs.UNIX
def test_a_file_name_cannot_drive_the_terminal(run: Run, tiny_file: Path, tmp_path: Path) -> None:
    name = "a\x1b[2J\nb.png"
    Image.fromarray(np.full((40, 50, 3), 90, np.uint8)).save(tmp_path / name)
    status, out, _ = run("classify", tmp_path / name, "--weights", tiny_file)
    assert status == 0
    assert "a\\x1b[2J\\nb.png" in out.splitlines()[0]
    status, _, err = run("classify", tmp_path / "none\x1b.png", "--weights", tiny_file)
    assert status == 2
    assert "\\x1b" in err
    assert "\x1b" not in err
