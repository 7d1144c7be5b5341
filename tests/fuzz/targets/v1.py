"""A V1 checkpoint as one file."""

from fuzz.checkpoints import CHECKED, folder, joined, parted, read_all, v1


def seeds() -> list[bytes]:
    return [joined(v1(), b"", flags) for flags in (0, CHECKED)]


def one(data: bytes) -> None:
    flags, first, second = parted(data)
    path = folder() / "model.ckpt"
    path.write_bytes(first + second)
    read_all(path, bool(flags & CHECKED))
