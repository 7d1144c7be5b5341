"""Labels files."""

from fuzz.checkpoints import folder
from fuzz.guard import ours
from resnet_ref.labels import read_labels


def seeds() -> list[bytes]:
    return [
        b"\1a\x1b[2Jb\n",
        b"\3cat\ndog\nbird\n",
        b"\3" + b"0:cat\r\n2:dog\r\n1:m\xc3\xb6we\r\n",
        b"\1\xef\xbb\xbfcat\n\n",
    ]


def one(data: bytes) -> None:
    path = folder() / "labels.txt"
    path.write_bytes(data[1:])
    ours(lambda: _read(sum(data[:1])))


def _read(count: int) -> None:
    labels = read_labels(folder() / "labels.txt", count)
    assert len(labels) == count
    assert all(label and "\n" not in label and "\x1b" not in label for label in labels)
