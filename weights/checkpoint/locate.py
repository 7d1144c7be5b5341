"""From whatever the user named (a file, a prefix, a folder, an archive) to the files of one checkpoint."""

from __future__ import annotations

import os
from pathlib import Path
from typing import NamedTuple

from resnet_ref.errors import CheckpointError
from resnet_ref.weights.checkpoint.archive import unpack
from resnet_ref.weights.checkpoint.folder import (
    STATE,
    Folder,
    base_name,
    data_prefix,
    require,
    shard_names,
    shard_prefix,
)
from resnet_ref.weights.checkpoint.sniff import Content, explain
from resnet_ref.weights.checkpoint.source import AGAIN


class Located(NamedTuple):
    """The files of one checkpoint in `folder`: `index_file` of a V2 one, or the `tables` of a V1 one."""

    folder: Folder
    prefix: str
    index_file: str | None
    tables: list[str]


def locate(path: Path, scratch: Path) -> Located:
    """Return the checkpoint that `path` names; archives are unpacked into the empty folder `scratch`.

    Raises CheckpointError if there is none, if parts are missing, or if there are several to choose from.
    """
    if os.path.isdir(path):  # Path.is_dir raises for a name that is too long
        return _choose([_on_disk(path)], str(path))
    folder = _on_disk(path.parent)
    if path.name not in folder.files:
        if os.path.exists(path):
            raise CheckpointError(
                f"{path}: expected a checkpoint, got a pipe, socket or device. Copy its content into a file."
            )
        return _by_prefix(folder, path.name, nearby=True)
    content = folder.content(path.name)
    if content in (Content.GZIP, Content.TAR):
        return _choose(unpack(path, str(path), content is Content.GZIP, scratch), str(path))
    if path.name == STATE and folder.state() is not None:
        return _choose([folder], str(path.parent))
    return _by_file(folder, path.name, content)


def data_names(located: Located, count: int) -> list[str]:
    """Return the names of a V2 checkpoint's `count` data files; raises CheckpointError if one is missing."""
    names = []
    for number in range(count):
        names.append(f"{located.prefix}.data-{number:05d}-of-{count:05d}")
        # one by one, because `count` is only what a file claims
        files = "the data" if count == 1 else f"the {count} data files"
        require(located.folder, names[-1:], f"{files} of {located.folder.shown(located.prefix)}.index")
    return names


def _by_file(folder: Folder, name: str, content: Content) -> Located:
    """Locate from one existing file, by its content where that tells, else by its name."""
    if name.endswith(".index") and content in (Content.TABLE, Content.TABLE_CUT):
        return Located(folder, name.removesuffix(".index"), name, [])
    if prefix := data_prefix(name) or (name.endswith(".meta") and name.removesuffix(".meta")):
        return _by_prefix(folder, prefix)
    if content is Content.TABLE:
        sharded = shard_prefix(name)
        return Located(folder, sharded or name, None, shard_names(folder, sharded) if sharded else [name])
    if content is Content.TABLE_CUT:
        raise CheckpointError(f"{folder.shown(name)}: begins like a checkpoint but does not end like one. {AGAIN}")
    raise explain(folder.files[name], folder.shown(name))


def _by_prefix(folder: Folder, prefix: str, nearby: bool = False) -> Located:
    if f"{prefix}.index" in folder.files:
        return Located(folder, prefix, f"{prefix}.index", [])
    if prefix in folder.files:
        return _by_file(folder, prefix, folder.content(prefix))
    sharded = shard_prefix(prefix) or prefix
    if tables := shard_names(folder, sharded):
        return Located(folder, sharded, None, tables)
    if any(data_prefix(name) == prefix for name in folder.files):
        require(folder, [f"{prefix}.index"], f"the checkpoint {folder.shown(prefix)}")
    others = [folder.shown(name) for name in folder.checkpoints()] if nearby else []
    hint = f"In that folder there is {', '.join(others[:8])}" if others else "Check the path"
    raise CheckpointError(
        f"{folder.shown(prefix)}: expected a checkpoint, got no such file and no {prefix}.index beside it. {hint}."
    )


def _choose(folders: list[Folder], title: str) -> Located:
    """Return the checkpoint that the folders' one state file names, or the only one in them."""
    states = [(folder, state) for folder in folders if (state := folder.state())]
    if len(states) == 1:
        return _by_state(*states[0], title)
    found = [(folder, prefix) for folder in folders for prefix in folder.checkpoints()]
    if len(found) == 1:
        return _by_prefix(*found[0])
    if found:
        names = [folder.shown(prefix) for folder, prefix in found]
        more = f" and {len(names) - 8} more" if len(names) > 8 else ""
        raise CheckpointError(
            f"{title}: expected one checkpoint, got {len(names)}: {', '.join(names[:8])}{more}. "
            "Name one of them (unpack an archive first)."
        )
    raise CheckpointError(
        f"{title}: expected a checkpoint in it, got none. Name the folder or the archive that holds a .ckpt file, "
        "or an .index file and its .data files."
    )


def _by_state(folder: Folder, state: str, title: str) -> Located:
    """Follow a state file. The checkpoint beside it comes first: folders get moved, and the path stays behind."""
    name = base_name(state)
    prefix = shard_prefix(name) or name
    if folder.has_part_of(prefix):
        return _by_prefix(folder, prefix)
    elsewhere = Path(title, state).parent
    if Path(title).is_dir() and elsewhere.is_dir() and (other := _on_disk(elsewhere)).has_part_of(prefix):
        return _by_prefix(other, prefix)
    raise CheckpointError(
        f"{folder.shown(STATE)}: it names {state}, but there is no such checkpoint beside it. "
        "Copy that one there, or name another one itself."
    )


def _on_disk(path: Path) -> Folder:
    """Return the folder at `path` with its regular files (or links to such); raises CheckpointError."""
    try:
        with os.scandir(path) as entries:
            # entry.is_file raises for a link to itself
            files = {entry.name: path / entry.name for entry in entries if os.path.isfile(entry)}
    except (OSError, ValueError) as error:  # ValueError: a path with a zero byte
        got = getattr(error, "strerror", None) or error
        raise CheckpointError(f"{path}: this folder cannot be read: {got}. Check the path.") from error
    return Folder("" if path == Path() else str(path), files)
