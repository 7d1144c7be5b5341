"""The main jobs on Windows and on macOS, as far as these can be had here: see fake_system/."""

import ctypes
import os
import textwrap
from pathlib import Path
from typing import Any, ClassVar

import fake_system
import pytest
from fake_system import BARE, MACOS, WINDOWS

from resnet_ref.bench import machine
from resnet_ref.kernels.vector import executor, sysctl
from resnet_ref.kernels.vector.executor import thread_count

SYSTEMS = [WINDOWS, MACOS]
OPTIONS = ("-X", "warn_default_encoding", "-W", "error", "-W", "ignore::EncodingWarning")
JOBS = """
    import json, os, signal, sys, warnings
    from pathlib import Path

    warnings.filterwarnings("error", "", EncodingWarning, "resnet_ref")  # Windows' default is not UTF-8
    sys.path[0] = os.getcwd()  # which a child imports from too
    import in_child
    import numpy as np
    from conftest import TINY, TINY_LABELS
    from PIL import Image
    from test_cli import narrow_checkpoint
    from variables import random_variables

    from resnet_ref import WeightsError, load_model, load_weights, save_weights
    from resnet_ref.cli.group import _run
    from resnet_ref.isolation import Pool, isolated
    from resnet_ref.network import Network
    from resnet_ref.weights.checkpoint import open_checkpoint

    folder = Path(sys.argv[1])
    os.chdir(folder)
    variables = random_variables(Network.from_json(TINY).variables())
"""


def there(system: str, job: str, folder: Path, **variables: str) -> str:
    """What a job prints there, in a folder, with a cache of its own; it must end well and complain of nothing."""
    code = textwrap.dedent(JOBS) + textwrap.dedent(job)
    cache = {"RESNET_REF_CACHE_DIR": str(folder / "cache")}
    done = fake_system.python(system, *OPTIONS, "-c", code, folder, **{**cache, **variables})
    assert (done.returncode, done.stderr) == (0, ""), done.stderr
    return done.stdout


@pytest.mark.parametrize("system", SYSTEMS)
def test_the_other_system_is_what_our_modules_and_their_children_see(system: str, tmp_path: Path) -> None:
    job = """
        seen = (sys.platform, hasattr(os, "fork"), hasattr(os, "sched_getaffinity"), hasattr(signal, "SIGXCPU"))
        print(seen, isolated(in_child.system, what="x") == seen, in_child.sys is sys)
        try:
            open("/proc/self/statm")
        except OSError:
            print("no processes")
    """
    expected = {
        WINDOWS: ("win32", False, False, False),
        MACOS: ("darwin", True, False, True),
    }[system]
    assert there(system, job, tmp_path).splitlines() == [f"{expected} True True", "no processes"]


@pytest.mark.parametrize("system", SYSTEMS)
def test_weights_are_saved_over_others_and_loaded(system: str, tmp_path: Path) -> None:
    job = """
        for factor in (1, 2):
            save_weights("w.h5", {name: factor * array for name, array in variables.items()}, TINY, labels=TINY_LABELS)
        loaded = load_weights("w.h5")
        assert all((loaded[name] == 2 * array).all() for name, array in variables.items())
        assert os.listdir() == ["w.h5"]
        try:
            with open("w.h5", "rb"):
                save_weights("w.h5", variables, TINY, labels=TINY_LABELS)
            print("saved")
        except WeightsError as error:
            print(error)
        assert os.listdir() == ["w.h5"]
    """
    said = there(system, job, tmp_path)
    in_use = (
        f"cannot write {tmp_path / 'w.h5'}: The process cannot access the file: it is being used; nothing was changed\n"
    )
    assert said == (in_use if system == WINDOWS else "saved\n")


@pytest.mark.parametrize("system", SYSTEMS)
def test_networks_compute_and_what_was_compiled_is_remembered(system: str, tmp_path: Path) -> None:
    job = """
        images = np.random.default_rng(0).normal(0, 50, (2, 64, 64, 3)).astype(np.float32)
        wanted = load_model(device="definition")(images)
        for device in ("cpu", "definition"):
            assert abs(load_model(device=device)(images) - wanted).max() < 1e-5
        from resnet_ref import resnet_v1
        weights = load_weights()
        eager, _ = resnet_v1.resnet_v1_50(
            images, 10, is_training=False, weights=weights, device="cpu", **{
                name: value for name, value in weights.network.arguments.items()
                if name in ("depth_multiplier", "min_base_depth", "output_stride")
            }
        )
        assert os.listdir("cache")
    """
    assert there(system, job, tmp_path) == ""


@pytest.mark.parametrize("system", SYSTEMS)
def test_the_command_line_does_all_its_jobs(system: str, tmp_path: Path) -> None:
    job = """
        import tarfile
        digit = Path(in_child.__file__).parents[1] / "weights" / "digits" / "digit_3_idx13.png"
        Path("3.png").write_bytes(digit.read_bytes())
        checkpoint = narrow_checkpoint(folder)
        with tarfile.open("c.tar.gz", "w:gz") as archive:
            for file in folder.glob("model.ckpt*"):
                archive.add(file, file.name)
        recording = str(Path(in_child.__file__).parent / "recorded" / "digits_recording.h5")
        for line in (
            f"convert {checkpoint} w.h5 --json", f"convert {checkpoint} w.h5 --force --json",
            "convert c.tar.gz unpacked.h5 --json", "summary --weights w.h5 --json",
            "classify 3.png --device cpu --json", "features 3.png -o f.h5 --device cpu --json",
            "features 3.png -o f.h5 --device cpu --json", "devices --json",
            "export digits d.safetensors --json", "export digits exported.ckpt --json",
            f"verify digits {recording} --device cpu --json",
            "trace 3.png --device cpu --profile --chrome t.json",
            "bench --threads 1 --rounds 1 --starts 0 --json",
        ):
            status = _run(line.split())
            assert status == 0, line
        assert not [name for name in os.listdir() if name.endswith(".part")]
        assert {"w.h5", "unpacked.h5", "f.h5", "d.safetensors", "exported.ckpt.index", "t.json"} <= set(os.listdir())
    """
    assert '"label": "3"' in there(system, job, tmp_path)


@pytest.mark.parametrize("system", SYSTEMS)
def test_a_child_that_crashes_or_takes_too_long_is_one_line(system: str, tmp_path: Path) -> None:
    job = """
        def said(function, *arguments):
            try:
                return isolated(function, *arguments, what="x", seconds=3)
            except WeightsError as error:
                return str(error).partition(";")[0]

        print(said(in_child.loop))
        print(said(in_child.leave))
        print(said(in_child.leave, 0))
        print(said(in_child.leave, 7))
        print(said(in_child.error_modes if os.name == "nt" else in_child.identity))
    """
    ended = "x ended the process that was reading it"
    assert there(system, job, tmp_path).splitlines() == [
        "x was not read within 3 s, so that was ended",
        f"{ended} (status 3)",
        f"{ended} (status 0)",
        f"{ended} (status 7)",
        "[32771]" if system == WINDOWS else "()",
    ]


@pytest.mark.parametrize(("system", "taken"), [(WINDOWS, True), (MACOS, False)])
def test_windows_finds_the_files_of_a_pattern_and_others_leave_that_to_the_shell(
    system: str, taken: bool, photos: list[Path], tiny_file: Path, tmp_path: Path
) -> None:
    """In order; a file of that very name is that file, and what matches nothing stays as it is."""
    for photo in photos[:2]:
        (tmp_path / photo.name).write_bytes(photo.read_bytes())
    (tmp_path / "[p]hoto 1.png").write_bytes(photos[2].read_bytes())

    def classified(*words: str) -> tuple[list[str], str]:
        code = "import os, sys; os.chdir(sys.argv.pop(1)); from resnet_ref.cli import main; main()"
        line = ("classify", *words, "--weights", tiny_file, "--top", 1, "--device", "cpu")
        done = fake_system.python(system, "-c", code, tmp_path, *line)
        return done.stdout.splitlines()[::2], done.stderr

    names, said = classified("p*.png", "[p]hoto 1.png")
    assert names == (["photo 1.png", "photo 2.png", "[p]hoto 1.png"] if taken else [])
    assert (said == "") == taken
    assert "p*.gif" in classified("p*.gif")[1]
    for word in ("~", "$HOME", "%TEMP%"):
        assert word in classified(word)[1]


def test_a_reader_who_leaves_is_no_error_on_windows_either(tmp_path: Path) -> None:
    """Python reports it there as an invalid argument, of no file."""
    job = """
        import contextlib, io
        from resnet_ref.cli import group
        def ended(error):
            def raising(arguments):
                raise error
            group._invoke = raising
            group._discard_output = lambda: None
            return group._run([])
        print(ended(OSError(22, "Invalid argument")), ended(BrokenPipeError()))
        with contextlib.redirect_stderr(io.StringIO()) as said:
            print(ended(OSError(22, "Invalid argument", "a?b")), said.getvalue(), end="")
    """
    assert there(WINDOWS, job, tmp_path) == "0 0\n2 resnet-ref: [Errno 22] Invalid argument: 'a?b'\n"


class Darwin:
    """Stands for macOS' libc: sysctlbyname tells the size, then writes so many bytes."""

    values: ClassVar = {
        b"hw.perflevel0.logicalcpu": (4).to_bytes(4, "little"),
        b"machdep.cpu.brand_string": b"Apple M9\0",
    }

    def sysctlbyname(self, name: bytes, value: Any, size: Any, _: None, __: Any) -> int:
        if name not in self.values:
            return -1
        if value is not None:
            assert size._obj.value == len(value) == len(self.values[name])
            ctypes.memmove(value, self.values[name], len(value))
        size._obj.value = len(self.values[name])
        return 0


def test_a_mac_computes_on_its_performance_cores_and_says_its_processors_name(monkeypatch: pytest.MonkeyPatch) -> None:
    for module in (executor, machine):
        monkeypatch.setattr(module.sys, "platform", "darwin")
    monkeypatch.delattr(os, "sched_getaffinity", raising=False)
    monkeypatch.setattr(os, "cpu_count", lambda: 10)
    assert thread_count(None) <= 10, "this system's libc knows no such name, or it is a Mac"
    monkeypatch.setattr(sysctl.ctypes, "CDLL", lambda name: Darwin())
    assert executor._affinity() == 4
    assert machine.processor() == "Apple M9"
    monkeypatch.setattr(Darwin, "values", {})
    assert executor._affinity() == 10, "an Intel Mac's cores are all alike"


@pytest.mark.parametrize(
    ("platform", "cpuinfo", "processor"),
    [
        ("linux", "processor\t: 0\nBogoMIPS\t: 50.00\n", "neoverse-n1"),
        ("linux", "processor\t: 0\nmodel name\t: EPYC 9\n", "EPYC 9"),
        ("win32", None, "Intel64 Family 6"),
        ("linux", None, "neoverse-n1"),
    ],
)
def test_a_processor_has_a_name_everywhere(
    monkeypatch: pytest.MonkeyPatch, platform: str, cpuinfo: str | None, processor: str
) -> None:
    def read(path: Path, *_: Any, **__: Any) -> str:
        if cpuinfo is None:
            raise FileNotFoundError(path)
        return cpuinfo

    monkeypatch.setattr(machine.sys, "platform", platform)
    monkeypatch.setattr(machine.platform, "processor", lambda: "Intel64 Family 6" if platform == "win32" else "")
    monkeypatch.setattr(machine.llvm, "get_host_cpu_name", lambda: "neoverse-n1")
    monkeypatch.setattr(Path, "read_text", read)
    assert machine.processor() == processor


@pytest.mark.slow
@pytest.mark.parametrize("system", [WINDOWS, MACOS, BARE])
def test_the_tests_themselves_start_there(system: str) -> None:
    """Every file is imported, or names the extra that it needs."""
    options = () if system == BARE else ("-n", "0")
    done = fake_system.python(system, "-m", "pytest", "--collect-only", "-q", "-p", "no:cacheprovider", *options, ".")
    assert done.returncode == 0, done.stdout[-3000:] + done.stderr
    reasons = [line for line in done.stdout.splitlines() if line.startswith("SKIPPED")]
    assert (len(reasons) > 10) == (system == BARE)
    assert all(".[" in line or "CuPy" in line for line in reasons)


def test_without_the_extras_a_test_that_needs_them_says_which() -> None:
    done = fake_system.python(
        BARE, "-m", "pytest", "-q", "-p", "no:cacheprovider", "test_record_live.py", "test_pages.py"
    )
    assert (done.returncode, done.stderr) == (0, "")
    for package, extra in (("tensorflow", "oracle"), ("selenium", "test")):
        assert f"needs {package}: pip install '.[{extra}]'" in done.stdout
