"""Find the checkpoints among the files of one folder, on disk or in an archive."""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path, PurePosixPath

from resnet_ref.errors import CheckpointError
from resnet_ref.weights.checkpoint.sniff import Content, content_of

STATE = "checkpoint"
_STATE_BYTES = 1 << 16
_STATE_PATH = re.compile(rb'^[ \t]*model_checkpoint_path:[ \t]*"((?:[^"\\\n]|\\.)*)"', re.MULTILINE)
_ESCAPE = re.compile(rb"\\([0-7]{1,3}|.)")
_DATA = re.compile(r"(.+)\.data-\d{5}-of-\d{5}")
# TensorFlow itself writes -?????-of-00003 for a whole set, also into the state file.
_SHARD = re.compile(r"(.+)-(?:\d{5}|\?{5})-of-\d{5}")


@dataclass(frozen=True)
class Folder:
    """Files by name. `title` is what messages call the folder; in an archive the names are not those on disk."""

    title: str
    files: Mapping[str, Path]

    def shown(self, name: str) -> str:
        """Return what messages call a file of this folder."""
        return f"{self.title}/{name}" if self.title else name

    def content(self, name: str) -> Content:
        """Tell what kind of file `name` is."""
        return content_of(self.files[name], self.shown(name))

    def checkpoints(self) -> list[str]:
        """Return the prefixes of the checkpoints in here, sorted; broken ones count, so that they get reported."""
        found = set()
        for name in self.files:
            if name.startswith("._"):  # macOS' companion files
                continue
            content = self.content(name)
            if prefix := data_prefix(name):
                found.add(prefix)
            elif content is Content.TABLE or (content is Content.TABLE_CUT and name.endswith((".index", ".ckpt"))):
                found.add(shard_prefix(name) or name.removesuffix(".index"))
        return sorted(found)

    def has_part_of(self, prefix: str) -> bool:
        """Tell whether any file of the checkpoint `prefix` is in here."""
        return any(
            prefix in (name, name.removesuffix(".index"), data_prefix(name), shard_prefix(name)) for name in self.files
        )

    def state(self) -> str | None:
        """Return the path that the `checkpoint` state file calls the newest; None without such a file or entry."""
        if STATE not in self.files:
            return None
        try:
            with self.files[STATE].open("rb") as file:
                match = _STATE_PATH.search(file.read(_STATE_BYTES))
        except OSError as error:
            raise CheckpointError(f"{self.shown(STATE)}: cannot be read: {error.strerror or error}.") from error
        return _ESCAPE.sub(_unescaped, match[1]).decode(errors="replace") if match else None


def data_prefix(name: str) -> str | None:
    """Return the prefix in a V2 data file's name, else None."""
    match = _DATA.fullmatch(name)
    return match[1] if match else None


def shard_prefix(name: str) -> str | None:
    """Return the prefix in the name of a sharded V1 file or of a whole set, else None."""
    match = _SHARD.fullmatch(name)
    return match[1] if match else None


def shard_names(folder: Folder, prefix: str) -> list[str]:
    """Return the names of all files of the sharded V1 checkpoint `prefix`, [] if there are none.

    Raises CheckpointError if some are missing or sets of several sizes lie there.
    """
    there = [name for name in folder.files if shard_prefix(name) == prefix]
    counts = {name[-5:] for name in there}
    if len(counts) > 1:
        raise CheckpointError(
            f"{folder.shown(prefix)}: expected one set of shards, got several: of {', '.join(sorted(counts))}. "
            "Keep only the right one."
        )
    if not there:
        return []
    count = int(counts.pop())
    if count == 0:
        raise CheckpointError(
            f"{folder.shown(there[0])}: expected a number of shards in its name, got 0. Give it its own name back."
        )
    wanted = [f"{prefix}-{number:05d}-of-{count:05d}" for number in range(count)]
    require(folder, wanted, f"a set of {count} shards")
    return wanted


def require(folder: Folder, names: list[str], what: str) -> None:
    """Raise CheckpointError, naming up to three, if any of `names`, which are `what`, is not in the folder."""
    missing = [folder.shown(name) for name in names if name not in folder.files]
    if missing:
        more = f" and {len(missing) - 3} more" if len(missing) > 3 else ""
        raise CheckpointError(
            f"{', '.join(missing[:3])}{more}: missing from {what}. Copy it into the same folder as the others."
        )


def base_name(path: str) -> str:
    """Return the last part of a path written on any system."""
    return PurePosixPath(path.replace("\\", "/")).name


def _unescaped(match: re.Match[bytes]) -> bytes:
    """Undo one of text protos' escapes: octal bytes, quotes and backslashes."""
    escape = match[1]
    return bytes([int(escape, 8) & 255]) if escape.isdigit() else escape
