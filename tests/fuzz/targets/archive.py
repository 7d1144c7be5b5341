"""Archives: .tar as it is, and .tar.gz of what was damaged before it was compressed, or after."""

import gzip
import io
import tarfile

from checkpoint_files import v1_scalar

from fuzz.checkpoints import folder, v1, v2
from fuzz.guard import ours
from resnet_ref.weights.checkpoint import open_checkpoint

_COMPRESS, _REPAIR = 1, 2


def seeds() -> list[bytes]:
    index, data = v2()
    files = {
        "train/m.index": index,
        "train/m.data-00000-of-00001": data,
        "train/checkpoint": b'model_checkpoint_path: "m"\n',
    }
    pax = {"path": "long/" * 30 + "model.ckpt", "comment": "x" * 40}
    tars = [
        _tar(files, tarfile.GNU_FORMAT),
        _tar({"a.ckpt": v1_scalar("x", 6)}, tarfile.USTAR_FORMAT),
        _tar({"b" * 120: v1()}, tarfile.GNU_FORMAT),
        _tar({"c.ckpt": v1_scalar("x", 6)}, tarfile.PAX_FORMAT, pax),
        _links(),
    ]
    packed = [b"\0" + gzip.compress(tar, mtime=0) for tar in tars[:2]]
    return packed + [bytes([flags]) + tar for tar in tars for flags in (_REPAIR, _REPAIR | _COMPRESS)]


def one(data: bytes) -> None:
    flags, tar = data[0] if data else 0, data[1:]
    if flags & _REPAIR:
        tar = _repaired(tar)
    path = folder() / "archive"
    path.write_bytes(gzip.compress(tar, 1, mtime=0) if flags & _COMPRESS else tar)
    ours(lambda: open_checkpoint(path).close())


def _repaired(tar: bytes) -> bytes:
    """Headers with right checksums: every block that says "ustar"."""
    out = bytearray(tar)
    for at in range(0, len(out) - 511, 512):
        if out[at + 257 : at + 262] == b"ustar":
            out[at + 148 : at + 156] = b" " * 8
            out[at + 148 : at + 156] = b"%06o\0 " % sum(out[at : at + 512])
    return bytes(out)


def _tar(files: dict[str, bytes], form: int, pax: dict[str, str] | None = None) -> bytes:
    out = io.BytesIO()
    with tarfile.open(fileobj=out, mode="w", format=form) as tar:
        for name, data in files.items():
            info = tarfile.TarInfo(name)
            info.size, info.pax_headers = len(data), pax or {}
            tar.addfile(info, io.BytesIO(data))
    return _short(out)


def _links() -> bytes:
    out = io.BytesIO()
    with tarfile.open(fileobj=out, mode="w") as tar:
        for kind in (tarfile.SYMTYPE, tarfile.LNKTYPE, tarfile.CHRTYPE, tarfile.FIFOTYPE, tarfile.GNUTYPE_SPARSE):
            info = tarfile.TarInfo("model.ckpt")
            info.type, info.linkname = kind, "../../etc/passwd"
            tar.addfile(info)
    return _short(out)


def _short(out: io.BytesIO) -> bytes:
    """Without the zeros at the end that fill 10 KiB."""
    return out.getvalue().rstrip(b"\0") + bytes(1024 + 512 - len(out.getvalue().rstrip(b"\0")) % 512)
