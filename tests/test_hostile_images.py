"""Images made to do harm: refused in one line, in this process and from another, in little memory."""

import os
import signal
import struct
import subprocess
import sys
import textwrap
import time
import zlib
from collections.abc import Callable
from pathlib import Path
from typing import Any

import needs
import numpy as np
import pytest
from conftest import Run
from numpy.typing import NDArray
from PIL import Image

from resnet_ref import images, isolation
from resnet_ref.batches import batches
from resnet_ref.errors import ImageError
from resnet_ref.images import IsolatedReader, read_image
from resnet_ref.model import load_model

CPU_SECONDS = 20  # of this process alone: what a file can make last for ever takes more
ADVICE = "it is damaged, or made to do harm; take it from a source you trust"


def chunk(kind: bytes, data: bytes) -> bytes:
    return len(data).to_bytes(4) + kind + data + zlib.crc32(kind + data).to_bytes(4)


def png(width: int, height: int, data: bytes = b"", more: bytes = b"") -> bytes:
    header = width.to_bytes(4) + height.to_bytes(4) + b"\x08\x02\0\0\0"
    return b"\x89PNG\r\n\x1a\n" + chunk(b"IHDR", header) + more + chunk(b"IDAT", data) + chunk(b"IEND", b"")


def saved(suffix: str, **options: Any) -> bytes:
    """The bytes of an image of 16 x 8 pixels."""
    import io

    stream = io.BytesIO()
    Image.new("RGB", (16, 8), (200, 100, 50)).save(stream, suffix, **options)
    return stream.getvalue()


def patched(content: bytes, old: bytes, new: bytes) -> bytes:
    """The size that a header states, replaced."""
    assert old in content
    return content.replace(old, new, 1)


def jpeg(width: int, height: int) -> bytes:
    return patched(saved("JPEG"), struct.pack(">HH", 8, 16), struct.pack(">HH", height, width))


def bmp(width: int, height: int) -> bytes:
    return patched(saved("BMP"), struct.pack("<ii", 16, 8), struct.pack("<ii", width, height))


def gif(width: int, height: int) -> bytes:
    return saved("GIF").replace(struct.pack("<HH", 16, 8), struct.pack("<HH", width, height))


def webp(width: int, height: int) -> bytes:
    return patched(saved("WEBP"), struct.pack("<HH", 16, 8), struct.pack("<HH", width, height))


def qoi(width: int, height: int) -> bytes:
    return b"qoif" + struct.pack(">II", width, height) + b"\x03\0" + b"\0" * 7 + b"\x01"


def ppm(width: int, height: int) -> bytes:
    return b"P6 %d %d 255\n" % (width, height) + b"\0" * 100


def tiff(width: int, height: int) -> bytes:
    content = saved("TIFF")
    for tag, old, new in ((256, 16, width), (257, 8, height)):
        found = content.index(struct.pack("<HHI", tag, 4, 1)) if struct.pack("<HHI", tag, 4, 1) in content else None
        if found is None:
            found = content.index(struct.pack("<HHI", tag, 3, 1))
        assert struct.unpack_from("<H", content, found + 8)[0] == old
        content = content[:found] + struct.pack("<HHII", tag, 4, 1, new) + content[found + 12 :]
    return content


def jpeg2000(width: int, height: int) -> bytes:
    content = saved("JPEG2000")
    return content.replace(struct.pack(">II", 8, 16), struct.pack(">II", height, width)).replace(
        struct.pack(">II", 16, 8), struct.pack(">II", width, height)
    )


def ico(width: int, height: int) -> bytes:
    """An icon says 16 x 16; the PNG in it says otherwise."""
    inner = png(width, height)
    return struct.pack("<HHH", 0, 1, 1) + struct.pack("<BBBBHHII", 16, 16, 0, 0, 1, 32, len(inner), 22) + inner


MAKERS: list[Callable[[int, int], bytes]] = [png, bmp, qoi, ppm, tiff, jpeg2000, ico]
SMALL: list[Callable[[int, int], bytes]] = [jpeg, gif]  # 16 bits for each side


def refused(path: Path, content: bytes | None = None) -> str:
    if content is not None:
        path.write_bytes(content)
    with pytest.raises(ImageError) as caught:
        read_image(path)
    message = str(caught.value)
    assert message.startswith(f"{path}: expected ")
    assert "\n" not in message
    assert len(message) < 600
    return message


@pytest.mark.parametrize(
    ("make", "side"), [*((make, 100_000) for make in MAKERS), *((make, 65_000) for make in SMALL), (webp, 16_383)]
)
def test_a_header_that_claims_a_huge_image_is_refused_by_what_it_claims(
    tmp_path: Path, make: Callable[[int, int], bytes], side: int
) -> None:
    before = time.process_time()
    message = refused(tmp_path / "huge", make(side, side))
    assert "expected at most 178,956,970 pixels, got " in message
    assert message.endswith("; scale the image down")
    assert time.process_time() - before < CPU_SECONDS


@pytest.mark.parametrize("make", [png, bmp, ppm, tiff])
@pytest.mark.parametrize("size", [(1, 170_000_000), (170_000_000, 1)])
def test_an_image_that_is_a_line_is_refused_before_memory_is_taken_for_its_rows(
    tmp_path: Path, make: Callable[[int, int], bytes], size: tuple[int, int]
) -> None:
    message = refused(tmp_path / "thin", make(*size))
    assert f"expected at most 1,048,576 pixels a side, got {size[0]:,} x {size[1]:,}; scale the image down" in message


@pytest.mark.parametrize("make", [*MAKERS, *SMALL, webp])
@pytest.mark.parametrize("size", [(0, 0), (0, 5), (5, 0)])
def test_an_image_without_pixels_is_refused(
    tmp_path: Path, make: Callable[[int, int], bytes], size: tuple[int, int]
) -> None:
    if make is gif and size != (0, 0):
        pytest.skip("Pillow takes the size of a GIF's frame where its screen has none")
    refused(tmp_path / "empty", make(*size))


@needs.PROC
def test_texts_and_profiles_that_unpack_to_much_are_not_unpacked(tmp_path: Path) -> None:
    """256 MiB of zeros in 256 KiB, where a PNG keeps its comments and its colour profile."""
    packer = zlib.compressobj(9)
    zeros = b"".join(packer.compress(bytes(1 << 20)) for _ in range(1 << 8)) + packer.flush()
    pixels = zlib.compress(b"\0" + bytes(3))
    for kind in (b"zTXt", b"iCCP"):
        path = tmp_path / "bomb.png"
        path.write_bytes(png(1, 1, pixels, chunk(kind, b"name\0\0" + zeros)))
        assert grown(path) < 60


def exif(entries: list[bytes], following: int = 0) -> bytes:
    """EXIF of one directory, big-endian; following: where the next is."""
    directory = struct.pack(">H", len(entries)) + b"".join(entries) + struct.pack(">I", following)
    return b"Exif\0\0MM\0*\0\0\0\x08" + directory


def orientation(kind: int, count: int, value: bytes) -> bytes:
    return struct.pack(">HHI", 0x0112, kind, count) + value


ABSURD: list[tuple[str, bytes]] = [
    ("0", exif([orientation(3, 1, b"\0\0\0\0")])),
    ("9", exif([orientation(3, 1, b"\0\x09\0\0")])),
    ("text", exif([orientation(2, 4, b"abc\0")])),
    ("four billion", exif([orientation(3, 0xFFFFFFFF, b"\0\0\0\x1a")])),
    ("of no kind", exif([orientation(99, 1, b"\0\x06\0\0")])),
    ("a fraction by zero", exif([orientation(5, 1, b"\0\0\0\x1a")]) + struct.pack(">II", 6, 0)),
    ("not a number", exif([orientation(11, 1, struct.pack(">f", float("nan")))])),
    ("elsewhere", exif([orientation(4, 2, b"\xff\xff\xff\xf0")])),
    ("a directory that follows itself", exif([orientation(3, 1, b"\0\x01\0\0")], 8)),
    ("a directory inside itself", exif([struct.pack(">HHII", 0x8769, 4, 1, 8), orientation(3, 1, b"\0\x01\0\0")])),
    ("60,000 entries", exif([orientation(3, 1, b"\0\x01\0\0")] * 5_000)),
    ("a directory beyond the end", b"Exif\0\0MM\0*\xff\xff\xff\xf0"),
    ("another offset", b"Exif\0\0II*\0\xf0\xff\xff\x7f"),
]


@pytest.mark.parametrize("absurd", [pytest.param(data, id=name) for name, data in ABSURD])
@pytest.mark.parametrize("kind", ["JPEG", "PNG", "WEBP"])
def test_absurd_exif_turns_nothing_and_keeps_nobody_from_the_pixels(tmp_path: Path, kind: str, absurd: bytes) -> None:
    path = tmp_path / "image"
    path.write_bytes(saved(kind, exif=absurd))
    before = time.process_time()
    assert read_image(path).shape == (8, 16, 3)
    assert time.process_time() - before < CPU_SECONDS


@needs.PROC
def test_an_animation_of_many_frames_costs_its_first(tmp_path: Path) -> None:
    frames = [Image.new("P", (500, 500), number % 250) for number in range(400)]
    path = tmp_path / "film.gif"
    frames[0].save(path, save_all=True, append_images=frames[1:])
    assert grown(path) < 40


def grown(path: Path) -> int:
    """MiB of resident memory, at its most, beyond what the imports take, that a process takes to read or refuse it."""
    script = """
        import sys
        from PIL import Image
        from resnet_ref.errors import ImageError
        from resnet_ref.images import read_image

        def most():
            return int(open("/proc/self/status").read().split("VmHWM:")[1].split()[0]) // 1024

        Image.init()
        before = most()
        try:
            read_image(sys.argv[1])
        except ImageError:
            pass
        print(most() - before)
    """
    command = [sys.executable, "-c", textwrap.dedent(script), str(path)]
    done = subprocess.run(command, capture_output=True, text=True, timeout=600, check=True)
    return int(done.stdout)


LARGEST = 13_300  # pixels a side: a little less than is let in
ROWS = zlib.compress(bytes(3 * LARGEST + 1) * 500, 9)


@needs.PROC
@pytest.mark.parametrize(
    "content",
    [
        pytest.param(lambda: png(LARGEST, LARGEST), id="png"),
        pytest.param(lambda: png(LARGEST, LARGEST, ROWS[:-9]), id="png cut off"),
        pytest.param(lambda: jpeg(LARGEST, LARGEST)[:-9], id="jpeg cut off"),
        pytest.param(lambda: bmp(LARGEST, LARGEST), id="bmp"),
        pytest.param(lambda: gif(LARGEST, LARGEST), id="gif"),
        pytest.param(lambda: qoi(LARGEST, LARGEST), id="qoi"),
        pytest.param(lambda: ppm(LARGEST, LARGEST), id="ppm"),
        pytest.param(lambda: tiff(LARGEST, LARGEST), id="tiff"),
        pytest.param(lambda: png(100_000, 100_000), id="beyond"),
    ],
)
def test_a_rejection_takes_less_than_200_mb(tmp_path: Path, content: Callable[[], bytes]) -> None:
    (path := tmp_path / "large").write_bytes(content())
    refused(path)
    assert grown(path) < 190


@needs.PROC
@pytest.mark.parametrize("make", [webp, jpeg2000])
def test_where_a_decoder_makes_room_before_it_looks_a_rejection_takes_what_the_image_would(
    tmp_path: Path, make: Callable[[int, int], bytes]
) -> None:
    """No check of ours could tell: these formats have no least number of bytes for a pixel."""
    (path := tmp_path / "large").write_bytes(make(LARGEST, LARGEST))
    refused(path)
    assert grown(path) < 4 * LARGEST**2 / 2**20 + 60


# From another process.


def kill_the_decoder(image: NDArray[np.uint8]) -> NDArray[np.uint8]:
    """Stands for a decoder that hostile bytes crash."""
    if image.shape == (1, 1, 3):
        os.kill(os.getpid(), signal.SIGSEGV)
    return image


@needs.KILL
def test_a_decoder_that_crashes_takes_one_image_with_it(tmp_path: Path) -> None:
    for number, side in enumerate((3, 1, 2, 1, 4)):
        Image.new("RGB", (side, side)).save(tmp_path / f"{number}.png")
    sizes, said = [], []
    with IsolatedReader(2) as reader:
        for path in sorted(tmp_path.iterdir()):
            try:
                sizes.append(len(reader(path, kill_the_decoder)))
            except ImageError as error:
                said.append(str(error))
    assert sizes == [3, 2, 4]
    assert said == [f"{tmp_path}/{n}.png ended the process that was reading it (SIGSEGV); {ADVICE}" for n in (1, 3)]


def test_another_process_gives_the_same_images_and_the_same_errors(tmp_path: Path, photos: list[Path]) -> None:
    (text := tmp_path / "text.png").write_text("no image")
    with IsolatedReader() as reader:
        for photo in photos:
            np.testing.assert_array_equal(reader(photo, np.asarray), read_image(photo))
        for path in (text, tmp_path, tmp_path / "none.png"):
            with pytest.raises(ImageError) as there:
                reader.check(path)
            with pytest.raises(ImageError) as here:
                read_image(path)
            assert str(there.value) == str(here.value)


def test_batches_from_other_processes_are_those_of_this_one(tiny_file: Path, photos: list[Path]) -> None:
    model = load_model(tiny_file, device="cpu", threads=2)
    with IsolatedReader(4) as reader:
        there = list(batches(model, photos * 5, 4, pytest.fail, reader))
    here = list(batches(model, photos * 5, 4, pytest.fail))
    assert [names for names, _ in there] == [names for names, _ in here]
    for one, other in zip(there, here, strict=True):
        np.testing.assert_array_equal(one[1], other[1])


@needs.KILL
def test_a_crash_on_the_command_line_is_one_line_and_the_others_are_answered(
    tmp_path: Path, photos: list[Path], tiny_file: Path, run: Run, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The child reads with this test's function, which dies of one of the files."""
    monkeypatch.setattr(images, "read_and", read_and_die_of_photo_2)
    status, out, err = run("classify", *photos, "--weights", tiny_file, "--device", "cpu")
    assert status == 2
    assert out.count("photo ") == 2
    assert err == f"resnet-ref: {photos[1]} ended the process that was reading it (SIGSEGV); {ADVICE}\n"


def read_and_die_of_photo_2(path: Path, then: Any) -> Any:
    if path.name == "photo 2.png":
        os.kill(os.getpid(), signal.SIGSEGV)
    return then(read_image(path))


def read_for_ever(path: Path, then: Any) -> Any:
    time.sleep(600)


@needs.ALARM
def test_an_interruption_does_not_wait_for_a_decoder_that_never_ends(
    photos: list[Path], tiny_file: Path, run: Run, monkeypatch: pytest.MonkeyPatch
) -> None:
    def interrupt(number: int, frame: Any) -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr(images, "read_and", read_for_ever)
    before = signal.signal(signal.SIGALRM, interrupt)
    signal.setitimer(signal.ITIMER_REAL, 3)
    started = time.monotonic()
    try:
        status, out, err = run("classify", photos[0], "--weights", tiny_file, "--device", "cpu")
    finally:
        signal.setitimer(signal.ITIMER_REAL, 0)
        signal.signal(signal.SIGALRM, before)
    assert (status, out, err) == (130, "", "resnet-ref: interrupted\n")
    assert time.monotonic() - started < 300  # it sleeps for 600 s


def test_a_decoder_that_never_ends_is_ended_and_the_others_are_answered(
    tmp_path: Path, photos: list[Path], tiny_file: Path, run: Run, monkeypatch: pytest.MonkeyPatch
) -> None:
    really_call = isolation._Child.call

    def call(child: Any, function: Any, arguments: Any, what: str, error: Any, seconds: float) -> Any:
        """The others may take as long as a busy machine makes them."""
        return really_call(child, function, arguments, what, error, 2.0 if what == str(photos[1]) else 600.0)

    monkeypatch.setattr(isolation._Child, "call", call)
    monkeypatch.setattr(images, "read_and", read_and_stop_at_photo_2)
    status, out, err = run("classify", *photos, "--weights", tiny_file, "--device", "cpu")
    assert status == 2
    assert out.count("photo ") == 2
    assert err == f"resnet-ref: {photos[1]} was not read within 2 s, so that was ended; {ADVICE}\n"


def read_and_stop_at_photo_2(path: Path, then: Any) -> Any:
    if path.name == "photo 2.png":
        time.sleep(600)
    return then(read_image(path))
