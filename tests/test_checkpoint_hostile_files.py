"""Archives made to do harm, and paths that are no files, get one line; nothing is written, waited for or followed."""

import gzip
import io
import os
import re
import socket
import tarfile
import tempfile
import time
from collections.abc import Callable
from pathlib import Path

import needs
import pytest
from checkpoint_files import v1_scalar, v2_scalar

from resnet_ref.errors import CheckpointError
from resnet_ref.weights.checkpoint import open_checkpoint

AGAIN = "The file is damaged or incomplete: copy or download it again."
NONE = (
    "expected a checkpoint in it, got none. Name the folder or the archive that holds a .ckpt file, or an .index file "
    "and its .data files."
)
SCALAR = v1_scalar("x", 6)


@pytest.fixture(autouse=True)
def scratch(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The folder that archives are unpacked into."""
    (tmp_path / "scratch").mkdir()
    monkeypatch.setattr(tempfile, "tempdir", str(tmp_path / "scratch"))
    return tmp_path / "scratch"


CPU_SECONDS = 20  # of this process alone: what a file can make last for ever takes more


def refusal(path: Path | str) -> str:
    with pytest.raises(CheckpointError) as caught:
        open_checkpoint(path)
    message = str(caught.value)
    assert "\n" not in message
    return message


def scalar(path: Path) -> float:
    with open_checkpoint(path) as checkpoint:
        return float(checkpoint.read("x"))


def header(name: bytes, size: bytes = b"%011o\0" % len(SCALAR), kind: bytes = b"0", magic: bytes = b"ustar\0") -> bytes:
    """Encode a member's header."""
    raw = bytearray(512)
    raw[: len(name)] = name
    raw[124:136], raw[156:157], raw[257 : 257 + len(magic)] = size, kind, magic
    raw[148:156] = b" " * 8
    raw[148:156] = b"%06o\0 " % sum(raw)
    return bytes(raw)


def padded(data: bytes) -> bytes:
    return data + bytes(-len(data) % 512)


END = bytes(1024)
MEMBER = header(b"model.ckpt") + padded(SCALAR)


@pytest.mark.parametrize(
    "name",
    ["/model.ckpt", "/etc/model.ckpt", "../model.ckpt", "a/../../../model.ckpt", "./model.ckpt", "..\\model.ckpt", "/"],
)
def test_a_member_lands_in_the_scratch_folder_whatever_its_name(tmp_path: Path, scratch: Path, name: str) -> None:
    before = set(tmp_path.parent.rglob("*"))
    (tmp_path / "a").write_bytes(header(name.encode()) + padded(SCALAR) + END)
    if name == "/":  # a folder
        assert refusal(tmp_path / "a") == f"{tmp_path}/a: {NONE}"
    else:
        assert scalar(tmp_path / "a") == 6
    assert set(tmp_path.parent.rglob("*")) - before == {tmp_path / "a"}


@pytest.mark.parametrize("kind", ["1", "2", "3", "4", "5", "6", "S"])
def test_a_member_that_is_no_ordinary_file_is_left_out_and_stepped_over(tmp_path: Path, kind: str) -> None:
    """Hard and symbolic links, devices, folders, pipes, sparse files; a good checkpoint after them is found."""
    odd = header(b"evil.ckpt", b"%011o\0" % 0, kind.encode())
    (tmp_path / "a").write_bytes(odd + END)
    assert refusal(tmp_path / "a") == f"{tmp_path}/a: {NONE}"
    (tmp_path / "b").write_bytes(odd + MEMBER + END)
    assert scalar(tmp_path / "b") == 6


def test_a_sparse_member_is_stepped_over_with_its_map(tmp_path: Path) -> None:
    more = bytearray(header(b"evil.ckpt", b"%011o\0" % 512, b"S"))
    more[482] = 1
    more[148:156] = b" " * 8
    more[148:156] = b"%06o\0 " % sum(more)
    goes_on, ends = bytearray(512), bytes(512)
    goes_on[504] = 1
    (tmp_path / "a").write_bytes(bytes(more) + bytes(goes_on) + ends + bytes(512) + MEMBER + END)
    assert scalar(tmp_path / "a") == 6
    fields = padded(b"22 GNU.sparse.major=1\n")
    (tmp_path / "b").write_bytes(header(b"p", b"%011o\0" % 22, b"x") + fields + MEMBER + END)
    assert refusal(tmp_path / "b") == f"{tmp_path}/b: {NONE}"


WRONG = {
    "no end mark": (MEMBER, "an unexpected end of data"),
    "cut header": (MEMBER[:300], "an unexpected end of data"),
    "cut content": (MEMBER[:600], "an unexpected end of data"),
    "cut after header": (MEMBER[:512], "an unexpected end of data"),
    "terabytes": (header(b"notes", b"\x80" + (1 << 50).to_bytes(11, "big")) + END, "an unexpected end of data"),
    "negative": (header(b"m.index", b"\xff" * 12) + END, "a header with a number that is none"),
    "no number": (header(b"m.index", b"0000000000x\0") + END, "a header with a number that is none"),
    "checksum": (MEMBER.replace(b"model", b"modem") + END, "a header with a wrong checksum"),
    "pax size": (header(b"p", b"%011o\0" % 11, b"x") + padded(b"11 size=-1\n") + MEMBER + END, "a number that is none"),
    "pax length": (
        header(b"p", b"%011o\0" % 9, b"x") + padded(b"99 path=a") + END,
        "an extended header that is damaged",
    ),
    "pax zero": (header(b"p", b"%011o\0" % 9, b"x") + padded(b"0 path=ab") + END, "an extended header that is damaged"),
    "huge name": (header(b"p", b"%011o\0" % (1 << 30), b"L") + END, "an extended header of 1073741824 bytes"),
    "chain": (header(b"p", b"%011o\0" % 0, b"x") * 5000 + END, "more than 7 extended headers in a row"),
    "globals": (header(b"p", b"%011o\0" % 0, b"g") * 5000 + END, "more than 7 extended headers in a row"),
}


@pytest.mark.parametrize("case", WRONG)
def test_a_wrong_archive_is_named_for_what_is_wrong(tmp_path: Path, scratch: Path, case: str) -> None:
    content, expected = WRONG[case]
    path = tmp_path / "a"
    path.write_bytes(content)
    said = refusal(path)
    assert said.startswith(f"{path}: expected a complete tar archive, got ")
    assert said.endswith(f"{expected}. {AGAIN}")
    assert not list(scratch.iterdir())


@pytest.mark.parametrize("form", [tarfile.USTAR_FORMAT, tarfile.GNU_FORMAT, tarfile.PAX_FORMAT])
def test_what_pythons_tarfile_writes_is_read_with_long_and_foreign_names(tmp_path: Path, form: int) -> None:
    long = "/".join(["folder"] * 20) if form == tarfile.USTAR_FORMAT else "é" * 200
    with tarfile.open(tmp_path / "a", "w", format=form) as tar:
        info = tarfile.TarInfo(f"{long}/model.ckpt")
        info.size = len(SCALAR)
        info.mtime = 1.5 if form == tarfile.PAX_FORMAT else 1
        tar.addfile(info, io.BytesIO(SCALAR))
    with open_checkpoint(tmp_path / "a") as checkpoint:
        assert checkpoint.files[0].path == f"{tmp_path}/a:{long}/model.ckpt"
        assert checkpoint.read("x") == 6


def test_a_bomb_is_refused_long_before_eight_gigabytes(tmp_path: Path, scratch: Path) -> None:
    zeros = gzip.compress(bytes(1 << 26))
    path = tmp_path / "a.tar.gz"
    path.write_bytes(gzip.compress(header(b"m.index", b"\x80" + (1 << 32).to_bytes(11, "big"))) + zeros * 64)
    assert refusal(path) == (
        f"{path}: unpacks to more than {100 * path.stat().st_size} bytes. "
        "If you trust it, and that is meant so, unpack it and name the checkpoint."
    )
    assert not list(scratch.iterdir())


def test_a_member_larger_than_the_disk_is_refused_before_it_is_written(tmp_path: Path, scratch: Path) -> None:
    (tmp_path / "a").write_bytes(header(b"m.index", b"\x80" + (1 << 50).to_bytes(11, "big")) + END)
    assert f"m.index unpacks to {1 << 50} bytes, but {scratch}/resnet-ref-unpacked-" in refusal(tmp_path / "a")
    assert refusal(tmp_path / "a").endswith(" free. Free some space, or point TMPDIR at another disk.")


# Paths


def _pipe(path: Path) -> None:
    os.mkfifo(path)


def _socket(path: Path) -> None:
    with socket.socket(socket.AF_UNIX) as server:
        here = Path.cwd()
        os.chdir(path.parent)  # a socket's path is short
        try:
            server.bind(path.name)
        finally:
            os.chdir(here)


def _device(path: Path) -> None:
    path.symlink_to("/dev/zero")


@pytest.mark.parametrize(
    "make", [pytest.param(_pipe, marks=needs.PIPES), pytest.param(_socket, marks=needs.UNIX),
             pytest.param(_device, marks=needs.UNIX)],
)  # fmt: skip
@pytest.mark.parametrize("name", ["model.ckpt", "model.index", "model.tar.gz"])
def test_a_pipe_socket_or_device_is_refused_without_waiting(
    tmp_path: Path, make: Callable[[Path], None], name: str
) -> None:
    make(tmp_path / name)
    assert refusal(tmp_path / name) == (
        f"{tmp_path / name}: expected a checkpoint, got a pipe, socket or device. Copy its content into a file."
    )
    assert refusal(tmp_path) == f"{tmp_path}: {NONE}"


@needs.PIPES
def test_a_pipe_in_the_place_of_a_data_file_is_missing(tmp_path: Path) -> None:
    path = v2_scalar(tmp_path / "m", "x", 1)
    data = tmp_path / "m.data-00000-of-00001"
    data.unlink()
    os.mkfifo(data)
    assert refusal(path) == (
        f"{data}: missing from the data of {path}.index. Copy it into the same folder as the others."
    )


@needs.LINKS
def test_a_path_that_leads_nowhere_is_refused(tmp_path: Path) -> None:
    (tmp_path / "loop").symlink_to(tmp_path / "loop")  # which spoils none of its neighbours
    for path, expected in (
        (f"{tmp_path}/a\0b", "expected a checkpoint, got no such file"),
        (f"{tmp_path}/{'a' * 300}", "expected a checkpoint, got no such file"),
        (f"{tmp_path}/{'a' * 300}/b", "this folder cannot be read: File name too long. Check the path."),
        (f"{tmp_path}/loop", "expected a checkpoint, got no such file"),
        (f"{tmp_path}/loop/m", "this folder cannot be read: Too many levels of symbolic links. Check the path."),
    ):
        assert expected in refusal(path)
    # As Python has it up to 3.12, and since.
    null = r"this folder cannot be read: (embedded null byte|\w+: embedded null character in path)\. Check the path\."
    assert re.search(null, refusal(f"{tmp_path}/a\0b/c"))


@needs.PROC
def test_a_file_that_cannot_be_read_is_named(tmp_path: Path) -> None:
    """/proc/self/mem is a regular file whose first byte nobody can read."""
    (tmp_path / "m.ckpt").symlink_to("/proc/self/mem")
    assert refusal(tmp_path / "m.ckpt") == f"{tmp_path}/m.ckpt: cannot be read: Input/output error."


def test_a_state_file_of_blank_lines_takes_no_time(tmp_path: Path) -> None:
    (tmp_path / "checkpoint").write_bytes(b"\n" * (1 << 16))
    before = time.process_time()
    assert refusal(tmp_path) == f"{tmp_path}: {NONE}"
    assert time.process_time() - before < CPU_SECONDS
