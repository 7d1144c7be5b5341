"""What is remembered on disk is found again, is whole, and was written by this user; else it is made anew."""

import os
import shutil
import stat
import subprocess
import sys
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import needs
import pytest

from resnet_ref.kernels import library as kernels_library
from resnet_ref.kernels.library import _fingerprint
from resnet_ref.kernels.vector import cache
from resnet_ref.kernels.vector.cache import VARIABLE, cached, folder, read, write
from resnet_ref.kernels.vector.isa import AVX2, AVX512, PLAIN
from resnet_ref.kernels.vector.sources import KERNELS, sources_hash

HOMES = ("HOME", "USERPROFILE")  # the second on Windows


@pytest.fixture
def place(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Where entries are kept; does not exist yet."""
    monkeypatch.setenv(VARIABLE, str(tmp_path / "here"))
    return tmp_path / "here"


class Maker:
    """Makes an entry, and counts how often."""

    def __init__(self) -> None:
        self.times = 0

    def __call__(self) -> bytes:
        self.times += 1
        return b"entry %d" % self.times


def test_an_entry_is_made_once_and_found_again_under_its_own_name(place: Path) -> None:
    make = Maker()
    assert [cached("a", make), cached("a", make), cached("b", make), cached("a", make)] == [
        b"entry 1",
        b"entry 1",
        b"entry 2",
        b"entry 1",
    ]
    assert sorted(entry.name for entry in place.iterdir()) == ["a", "b"]
    assert stat.S_IMODE(place.stat().st_mode) == 0o700


def test_what_is_written_replaces_what_was_there(place: Path) -> None:
    for data in (b"first", b"", b"second" * 100_000):
        write("a", data)
        assert read("a") == data
    assert read("b") is None


DAMAGES: dict[str, Callable[[bytes], bytes]] = {
    "a byte changed": lambda data: data[:35] + bytes([data[35] ^ 1]) + data[36:],
    "the digest changed": lambda data: bytes([data[0] ^ 1]) + data[1:],
    "cut off": lambda data: data[:-1],
    "longer": lambda data: data + b"x",
    "only the digest's beginning": lambda data: data[:7],
    "empty": lambda data: b"",
}


@pytest.mark.parametrize("damage", DAMAGES)
def test_a_damaged_entry_is_made_anew_and_is_whole_afterwards(place: Path, damage: str) -> None:
    make = Maker()
    cached("a", make)
    (place / "a").write_bytes(DAMAGES[damage]((place / "a").read_bytes()))
    assert read("a") is None
    assert cached("a", make) == b"entry 2"
    assert cached("a", make) == b"entry 2"


def test_a_folder_stands_for_no_entry(place: Path) -> None:
    (place / "a").mkdir(parents=True)
    place.chmod(0o700)
    assert cached("a", Maker()) == b"entry 1"
    assert [entry.name for entry in place.iterdir()] == ["a"], "what could not be moved there is gone"


@needs.MODES
@pytest.mark.parametrize("mode", [0o777, 0o770, 0o707, 0o720, 0o702])
def test_a_folder_that_others_can_write_to_is_not_used(place: Path, mode: int) -> None:
    write("a", b"mine")
    place.chmod(mode)
    make = Maker()
    assert read("a") is None
    assert [cached("a", make), cached("b", make)] == [b"entry 1", b"entry 2"]
    assert [entry.name for entry in place.iterdir()] == ["a"]
    place.chmod(0o755)
    assert read("a") == b"mine", "nothing was written while it was open to others"


@needs.MODES
def test_a_folder_of_somebody_else_is_not_used(place: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    write("a", b"mine")
    monkeypatch.setattr(os, "geteuid", lambda: place.stat().st_uid + 1)
    assert read("a") is None
    assert cached("b", Maker()) == b"entry 1"
    assert [entry.name for entry in place.iterdir()] == ["a"]


def test_where_nothing_can_be_written_the_entry_is_made_each_time(monkeypatch: pytest.MonkeyPatch, place: Path) -> None:
    write("kept", b"mine")

    def refuse(**_: object) -> None:
        raise PermissionError("read-only")

    monkeypatch.setattr(cache.tempfile, "mkstemp", refuse)
    make = Maker()
    assert [cached("a", make), cached("kept", make), cached("a", make)] == [b"entry 1", b"mine", b"entry 2"]


def test_a_full_disk_leaves_neither_an_entry_nor_a_part_of_one(place: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def full(*_: object) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(cache.os, "replace", full)
    assert cached("a", Maker()) == b"entry 1"
    assert list(place.iterdir()) == []


@pytest.mark.parametrize("below", ["", "below/it"])
def test_a_file_in_place_of_the_folder_is_left_alone(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, below: str
) -> None:
    (tmp_path / "file").write_bytes(b"mine")
    monkeypatch.setenv(VARIABLE, str(tmp_path / "file" / below))
    make = Maker()
    assert [cached("a", make), cached("a", make)] == [b"entry 1", b"entry 2"]
    assert (tmp_path / "file").read_bytes() == b"mine"


def test_the_folder_is_the_one_named_or_the_users(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setenv(VARIABLE, str(tmp_path / "named"))
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "xdg"))
    for name in HOMES:
        monkeypatch.setenv(name, str(tmp_path / "home"))
    (tmp_path / "home").mkdir()
    assert folder() == tmp_path / "named"
    monkeypatch.setenv(VARIABLE, "")
    assert folder() == tmp_path / "xdg" / "resnet-ref"
    monkeypatch.delenv("XDG_CACHE_HOME")
    monkeypatch.setattr(cache.sys, "platform", "linux")
    assert folder() == tmp_path / "home" / ".cache" / "resnet-ref"
    monkeypatch.setattr(cache.sys, "platform", "darwin")
    assert folder() == tmp_path / "home" / "Library" / "Caches" / "resnet-ref"
    monkeypatch.setattr(cache.sys, "platform", "win32")
    monkeypatch.setenv("LOCALAPPDATA", str(tmp_path / "local"))
    assert folder() == tmp_path / "local" / "resnet-ref" / "Cache"


@pytest.mark.parametrize("home", ["", "/", "/no/such/home"])
def test_what_is_no_home_is_not_made_one(monkeypatch: pytest.MonkeyPatch, home: str) -> None:
    monkeypatch.delenv(VARIABLE, raising=False)
    for name in ("XDG_CACHE_HOME", "LOCALAPPDATA"):
        monkeypatch.delenv(name, raising=False)
    for name in HOMES:
        monkeypatch.setenv(name, home)
    assert folder() is None


@needs.MODES
def test_an_entry_that_others_could_have_written_is_not_used(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setenv(VARIABLE, str(tmp_path / "cache"))
    cache.write("entry", b"ours")
    (tmp_path / "cache" / "entry").chmod(0o666)
    assert cache.read("entry") is None
    (tmp_path / "cache" / "entry").chmod(0o600)
    assert cache.read("entry") == b"ours"


def test_without_a_home_nothing_is_kept(monkeypatch: pytest.MonkeyPatch) -> None:
    def homeless() -> Path:
        raise RuntimeError("Could not determine home directory.")

    for name in (VARIABLE, "LOCALAPPDATA"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setattr(cache.Path, "home", homeless)
    assert folder() is None
    assert cached("a", Maker()) == b"entry 1"


def test_a_home_that_is_no_folder_keeps_nothing(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in (VARIABLE, "XDG_CACHE_HOME", "LOCALAPPDATA"):
        monkeypatch.delenv(name, raising=False)
    for name in HOMES:
        monkeypatch.setenv(name, os.devnull)
    make = Maker()
    assert [cached("a", make), cached("a", make)] == [b"entry 1", b"entry 2"]


WRITER = """
import sys
from resnet_ref.kernels.vector.cache import read, write
mine = sys.argv[1].encode() * 500_000
write("a", mine)
print("begun", flush=True)
for _ in range(100):
    write("a", mine)
    found = read("a")
    assert found is not None and found[:1] in b"xy" and found == found[:1] * 500_000, "neither one's entry"
"""


def test_processes_that_write_at_once_leave_one_whole_entry(place: Path) -> None:
    writers = [
        subprocess.Popen(
            [sys.executable, "-c", WRITER, letter], stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True
        )
        for letter in "xy"
    ]
    for writer in writers:
        _, said = writer.communicate(timeout=600)
        assert writer.returncode == 0, said
    assert read("a") in (b"x" * 500_000, b"y" * 500_000)
    assert [entry.name for entry in place.iterdir()] == ["a"]


def test_kernels_are_compiled_once_and_then_read(place: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    compiled: list[str] = []
    compile_object = kernels_library.compile_object

    def counted(e: object) -> bytes:
        compiled.append("once")
        return compile_object(e)  # type: ignore[arg-type]

    monkeypatch.setattr(kernels_library, "compile_object", counted)
    first, second = (kernels_library.library.__wrapped__(PLAIN) for _ in range(2))
    assert compiled == ["once"]
    (entry,) = place.iterdir()
    assert entry.name.startswith("kernels-plain-")
    assert first["run"] != second["run"]
    entry.write_bytes(entry.read_bytes()[:-100])
    kernels_library.library.__wrapped__(PLAIN)
    assert compiled == ["once", "once"]


RUN_PLAIN = """
import numpy as np
from resnet_ref.kernels.library import library
from resnet_ref.kernels.vector.isa import PLAIN
from resnet_ref.kernels.vector.team import TEAM, native
team = np.zeros(64, np.int64)
team[:5], team[8] = TEAM.pack(program=0, threads=2, scratch=0, scratch_step=0, number=7), 5
native(library(PLAIN), "publish", 1)(team.ctypes.data)
assert team[8] == 0 and team[24] == 7, "none is done, and the first helper has its number"
"""


@pytest.mark.parametrize("stamped", [False, True])
def test_code_of_another_architecture_is_not_run_even_where_ours_is_looked_for(place: Path, stamped: bool) -> None:
    """As a home shared by machines, or Rosetta, would have it. Another process runs it, which may crash."""
    child = [sys.executable, "-c", RUN_PLAIN]
    subprocess.run(child, check=True, timeout=60)
    (entry,) = place.iterdir()
    ours = read(entry.name)
    other = "x86_64" if PLAIN.architecture == "aarch64" else "aarch64"
    theirs = replace(PLAIN, triple=f"{other}-unknown-linux-gnu")
    code = kernels_library.compile_object(kernels_library.emit_all(theirs))
    write(entry.name, f"{theirs.target}\n".encode() + code if stamped else code)
    subprocess.run(child, check=True, timeout=60)
    assert [entry.name for entry in place.iterdir()] == [entry.name]
    assert read(entry.name) == ours, "and ours stands there again"


def test_an_entry_with_another_stamp_is_made_anew_and_without_it_handed_out(place: Path) -> None:
    make = Maker()
    assert [cached("a", make, stamp) for stamp in (b"x\n", b"x\n", b"y\n", b"y\n")] == [
        b"entry 1",
        b"entry 1",
        b"entry 2",
        b"entry 2",
    ]
    assert read("a") == b"y\nentry 2"
    write("a", b"y")
    assert cached("a", make, b"y\n") == b"entry 3"


def test_other_kernels_have_another_name(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Another instruction set, system or architecture, another LLVM, another line in any source file: each changes it,
    nothing else."""
    shutil.copytree(KERNELS, tmp_path / "kernels", ignore=shutil.ignore_patterns("__pycache__"))
    architectures = ("x86_64-unknown-linux-gnu", "aarch64-unknown-linux-gnu", "")
    systems = ("x86_64-apple-darwin22.6.0", "arm64-apple-darwin22.6.0")
    others = [replace(PLAIN, triple=triple) for triple in (*architectures, *systems)]
    others += [replace(PLAIN, cpu="x86-64-v2"), replace(PLAIN, features="+sse3")]
    names = [_fingerprint(isa) for isa in (AVX512, AVX2, *others)]
    monkeypatch.setattr(kernels_library, "KERNELS", tmp_path / "kernels")
    assert _fingerprint(AVX512) == names[0]
    for source in ("conv2d/direct_planned.py", "vector/tile.py", "library.py"):
        with (tmp_path / "kernels" / source).open("a") as file:
            file.write("\n# another line\n")
        names.append(_fingerprint(AVX512))
    monkeypatch.setattr(kernels_library.llvmlite, "__version__", "0.0.1")
    names.append(_fingerprint(AVX512))
    assert len(set(names)) == len(names) == 13


def test_the_target_is_known_before_it_is_compiled_for() -> None:
    """An empty triple would be the same text on every architecture."""
    assert PLAIN.triple
    assert PLAIN.triple in PLAIN.target


def test_a_hash_of_sources_is_of_names_and_contents_of_python_and_cuda_files_alone(tmp_path: Path) -> None:
    def sources(**files: str) -> str:
        folder = tmp_path / str(len(list(tmp_path.iterdir())))
        for name, text in files.items():
            file = folder / name.replace("_", "/", 1).replace("__", ".")
            file.parent.mkdir(parents=True, exist_ok=True)
            file.write_text(text)
        return sources_hash(folder)

    first = sources(a_x__py="1", a_y__cu="2", b_z__cuh="3")
    assert first == sources(b_z__cuh="3", a_y__cu="2", a_x__py="1", a_notes__md="4", a_x__pyc="5")
    others = [
        sources(a_x__py="1 ", a_y__cu="2", b_z__cuh="3"),
        sources(a_x__py="1", a_y__cu="", b_z__cuh="3"),
        sources(a_x__py="1", a_y__cu="2", b_z__cuh="33"),
        sources(b_x__py="1", a_y__cu="2", b_z__cuh="3"),
        sources(a_x__py="12", a_y__cu="", b_z__cuh="3"),
        sources(a_x__py="1", a_y__cu="2"),
    ]
    assert len({first, *others}) == 7


def test_without_sources_the_compiled_modules_or_else_the_executable_are_hashed(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    folder, program = tmp_path / "package", tmp_path / "program"
    folder.mkdir()
    monkeypatch.setattr(sys, "executable", str(program))
    hashes = set()
    for number, file in enumerate([program, program, folder / "a.pyc", folder / "a.pyc", folder / "a.py"]):
        file.write_text(f"{number}")
        hashes.add(sources_hash(folder))
    assert len(hashes) == 5
    (folder / "a.pyc").write_text("of no account beside sources")
    program.write_text("nor this")
    assert sources_hash(folder) in hashes
