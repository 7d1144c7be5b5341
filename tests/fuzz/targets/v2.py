"""A V2 checkpoint: index and data, damaged together."""

from fuzz.checkpoints import CHECKED, folder, joined, parted, read_all, v2


def seeds() -> list[bytes]:
    return [joined(*v2(), flags) for flags in (0, CHECKED)]


def one(data: bytes) -> None:
    flags, index, values = parted(data)
    (folder() / "m.index").write_bytes(index)
    (folder() / "m.data-00000-of-00001").write_bytes(values)
    read_all(folder() / "m", bool(flags & CHECKED))
