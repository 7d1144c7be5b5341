"""Whatever people call a checkpoint leads to it, and what is none is named for what it is."""

import gzip
import io
import tarfile
import tempfile
from pathlib import Path

import h5py
import numpy as np
import pytest
from checkpoint_files import MAGIC, table, v1_scalar, v2_scalar

from resnet_ref.errors import CheckpointError
from resnet_ref.weights.checkpoint import archive, open_checkpoint


def scalar(path: Path | str) -> float:
    """Read the variable x of the checkpoint."""
    with open_checkpoint(path) as checkpoint:
        assert list(checkpoint.variables) == ["x"]
        return float(checkpoint.read("x"))


def refusal(path: Path | str) -> str:
    """Return the message with which opening fails: one line that begins with the path asked for, or its folder."""
    with pytest.raises(CheckpointError) as caught:
        open_checkpoint(path)
    message = str(caught.value)
    assert "\n" not in message
    return message


def pack(path: Path, files: dict[str, bytes], mode: str = "w:gz") -> Path:
    with tarfile.open(path, mode) as tar:
        for name, data in files.items():
            info = tarfile.TarInfo(name)
            info.size = len(data)
            tar.addfile(info, io.BytesIO(data))
    return path


def files_of(folder: Path) -> dict[str, bytes]:
    return {path.name: path.read_bytes() for path in folder.iterdir()}


@pytest.mark.parametrize("end", ["", ".index", ".data-00000-of-00001", ".meta"])
def test_every_name_of_a_v2_checkpoint_leads_to_it(tmp_path: Path, end: str) -> None:
    v2_scalar(tmp_path / "model.ckpt-7", "x", 2.5)
    (tmp_path / "model.ckpt-7.meta").write_bytes(b"\x0a\x02graph")
    assert scalar(f"{tmp_path / 'model.ckpt-7'}{end}") == 2.5
    assert scalar(tmp_path) == 2.5


def test_a_v1_file_is_known_by_its_content_under_any_name(tmp_path: Path) -> None:
    for name in ("model.ckpt", "renamed.h5", "x.tar.gz"):
        (tmp_path / name).write_bytes(v1_scalar("x", -3.0))
        assert scalar(tmp_path / name) == -3


def test_a_relative_path_in_the_current_folder_works(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    v2_scalar(tmp_path / "model", "x", 1)
    monkeypatch.chdir(tmp_path)
    assert scalar("model") == scalar(".") == 1
    with open_checkpoint("model") as checkpoint:
        assert checkpoint.files[0].path == "model.index"


def test_the_state_file_chooses_among_several_and_survives_a_move(tmp_path: Path) -> None:
    """An absolute path that is no more counts by its last part; escapes in it are undone."""
    v2_scalar(tmp_path / "model-1", "x", 1)
    v2_scalar(tmp_path / "modèl-2", "x", 2)
    assert all(name in refusal(tmp_path) for name in ("model-1", "modèl-2", "one"))
    state = tmp_path / "checkpoint"
    state.write_text('model_checkpoint_path: "/gone/mod\\303\\250l-2"\nall_model_checkpoint_paths: "/gone/model-1"\n')
    assert scalar(tmp_path) == scalar(state) == 2
    state.write_text('model_checkpoint_path: "model-3"\n')
    assert "model-3" in refusal(tmp_path)


def test_a_state_file_may_point_to_another_folder(tmp_path: Path) -> None:
    v2_scalar(tmp_path / "model", "x", 4)
    (tmp_path / "sub").mkdir()
    for path in (tmp_path / "model", "../model"):
        (tmp_path / "sub" / "checkpoint").write_text(f'model_checkpoint_path: "{path}"\n')
        assert scalar(tmp_path / "sub") == 4


@pytest.mark.parametrize("mode", ["w:gz", "w"])
@pytest.mark.parametrize("version", [1, 2])
def test_an_archive_is_read_and_leaves_nothing_behind(
    tmp_path: Path, mode: str, version: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    inside = tmp_path / "inside"
    scratch = tmp_path / "scratch"
    inside.mkdir()
    scratch.mkdir()
    monkeypatch.setattr(tempfile, "tempdir", str(scratch))
    if version == 1:
        (inside / "model.ckpt").write_bytes(v1_scalar("x", 5))
    else:
        v2_scalar(inside / "model.ckpt", "x", 5)
    files = {f"a/b/{name}": data for name, data in files_of(inside).items()} | {
        "a/README": b"text",
        "a/b/._x.index": table({}),
    }
    path = pack(tmp_path / "named_anyhow.bin", files, mode)
    with open_checkpoint(path) as checkpoint:
        assert float(checkpoint.read("x")) == 5
        assert checkpoint.files[0].path.startswith(f"{path}:a/b/model.ckpt")
        assert len(list(scratch.rglob("*"))) == len(checkpoint.files) + 2  # the folder itself, and ._x.index
    assert not list(scratch.iterdir())
    refusal(pack(tmp_path / "empty", {"README": b"text"}))
    assert not list(scratch.iterdir())


def test_an_archive_cannot_write_outside_or_bring_links(tmp_path: Path) -> None:
    """Members called ../x and /x land in the scratch folder under numbers; links are left out."""
    path = pack(tmp_path / "a.tar.gz", {"../../evil.ckpt": v1_scalar("x", 6)})
    assert scalar(path) == 6
    assert not list(tmp_path.parent.glob("evil*"))
    with tarfile.open(tmp_path / "b.tar", "w") as tar:
        link = tarfile.TarInfo("model.ckpt")
        link.type, link.linkname = tarfile.SYMTYPE, "/etc/passwd"
        tar.addfile(link)
    assert "none" in refusal(tmp_path / "b.tar")
    assert "none" in refusal(pack(tmp_path / "c.tar", {"two\nlines.ckpt": v1_scalar("x", 6)}))


def test_a_bomb_is_refused_while_it_unpacks(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(archive, "MOST_BYTES", 1 << 22)
    monkeypatch.setattr(archive, "MOST_MEMBERS", 20)
    big = pack(tmp_path / "big", {"model.ckpt": v1_scalar("x", 6), "zeros": bytes(1 << 23)})
    assert str(1 << 22) in refusal(big)
    trailing = pack(tmp_path / "trailing", {"model.ckpt": v1_scalar("x", 6)})
    trailing.write_bytes(gzip.compress(gzip.decompress(trailing.read_bytes()) + bytes(1 << 23)))
    assert str(1 << 22) in refusal(trailing)
    assert "20 members" in refusal(pack(tmp_path / "many", {f"{k}": b"" for k in range(21)}))


def test_a_huge_extended_header_in_an_archive_is_refused(tmp_path: Path) -> None:
    with tarfile.open(tmp_path / "a", "w:gz", format=tarfile.PAX_FORMAT) as tar:
        info = tarfile.TarInfo("model.ckpt")
        info.pax_headers = {"comment": "x" * (1 << 20)}
        tar.addfile(info)
    assert "extended header" in refusal(tmp_path / "a")


def test_a_cut_or_foreign_archive_is_refused(tmp_path: Path) -> None:
    whole = pack(tmp_path / "a", {"model.ckpt": v1_scalar("x", 6)}).read_bytes()
    for size in range(4, len(whole), 7):
        (tmp_path / "cut").write_bytes(whole[:size])
        assert "cut" in refusal(tmp_path / "cut")
    (tmp_path / "not_tar").write_bytes(gzip.compress(b"some text" * 1000))
    assert "gzip-compressed tar" in refusal(tmp_path / "not_tar")


def test_several_checkpoints_in_an_archive_are_listed(tmp_path: Path) -> None:
    path = pack(tmp_path / "a", {"b/one.ckpt": v1_scalar("x", 1), "c/two.ckpt": v1_scalar("x", 2)})
    assert all(name in refusal(path) for name in ("b/one.ckpt", "c/two.ckpt", "unpack"))


def test_missing_parts_are_named(tmp_path: Path) -> None:
    prefix = v2_scalar(tmp_path / "model", "x", 1)
    index, data = (tmp_path / f"model{end}" for end in (".index", ".data-00000-of-00001"))
    kept = index.read_bytes()
    index.unlink()
    for path in (prefix, data, tmp_path, index):
        assert "model.index" in refusal(path)
    index.write_bytes(kept)
    data.unlink()
    for path in (prefix, index, tmp_path):
        assert "model.data-00000-of-00001: missing" in refusal(path)
    for number in (0, 2):
        (tmp_path / f"old.ckpt-0000{number}-of-00003").write_bytes(v1_scalar(f"x{number}", number))
    for path in ("old.ckpt", "old.ckpt-00000-of-00003", "old.ckpt-?????-of-00003"):
        assert "old.ckpt-00001-of-00003: missing" in refusal(tmp_path / path)
    (tmp_path / "old.ckpt-00000-of-00001").write_bytes(v1_scalar("x", 1))
    assert "several" in refusal(tmp_path / "old.ckpt")


def test_a_wrong_path_says_what_is_there_instead(tmp_path: Path) -> None:
    v2_scalar(tmp_path / "model.ckpt-100", "x", 1)
    assert "model.ckpt-100" in refusal(tmp_path / "model.ckpt")
    assert "nowhere" in refusal(tmp_path / "nowhere" / "model.ckpt")
    assert "none" in refusal(Path(tempfile.mkdtemp(dir=tmp_path)))


FOREIGN = {
    b"\x89PNG\r\n\x1a\n": "PNG",
    b"PK\x03\x04": ".keras",
    b"hello, world": "text",
    b"": "empty",
    b"<!DOCTYPE html>": "download",
    b"version https://git-lfs.github.com/spec/v1\n": "LFS",
    b"\x93NUMPY": "nor anything known",
}


@pytest.mark.parametrize(("start", "word"), FOREIGN.items())
@pytest.mark.parametrize("name", ["model.ckpt", "model.index"])
def test_a_file_that_is_no_checkpoint_is_named_for_what_it_is(
    tmp_path: Path, start: bytes, word: str, name: str
) -> None:
    (tmp_path / name).write_bytes(start)
    assert word in refusal(tmp_path / name)


def test_hdf5_is_sent_to_where_it_is_welcome(tmp_path: Path) -> None:
    with h5py.File(tmp_path / "model.ckpt", "w") as file:
        file["x"] = np.zeros(3)
    assert "use it directly as a weights file" in refusal(tmp_path / "model.ckpt")


def test_a_table_that_is_no_checkpoint_is_refused(tmp_path: Path) -> None:
    (tmp_path / "leveldb.sst").write_bytes(table({b"key": b"value"}))
    assert "no TensorFlow checkpoint" in refusal(tmp_path / "leveldb.sst")
    (tmp_path / "short").write_bytes(MAGIC)
    assert "too few" in refusal(tmp_path / "short")


def test_an_unknown_variable_gets_the_nearest_names(tmp_path: Path) -> None:
    checkpoint = open_checkpoint(v2_scalar(tmp_path / "m", "resnet_v1_50/conv1/weights", 1))
    with checkpoint, pytest.raises(CheckpointError, match="nearest names are 'resnet_v1_50/conv1/weights'"):
        checkpoint.read("resnet_v1_50/conv1/weight")
    with pytest.raises(CheckpointError, match="closed"):
        checkpoint.read("resnet_v1_50/conv1/weights")
