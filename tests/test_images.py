"""Image files of every kind Pillow writes, and of every kind that is none."""

import contextlib
import os
import threading
import time
import warnings
import zlib
from pathlib import Path
from typing import Any

import needs
import numpy as np
import pytest
from numpy.typing import NDArray
from PIL import Image

from resnet_ref.errors import ImageError
from resnet_ref.images import FORMATS, find_images, read_image

RED, WHITE = (255, 0, 0), (255, 255, 255)


def rgb(height: int, width: int) -> NDArray[np.uint8]:
    return np.random.default_rng(height * width).integers(0, 256, (height, width, 3)).astype(np.uint8)


def save(path: Path, image: Image.Image, **options: Any) -> Path:
    image.save(path, **options)
    return path


def refused(path: Path | str, message: str) -> None:
    with pytest.raises(ImageError, match=message) as caught:
        read_image(path)
    assert str(path) in str(caught.value)
    assert len(str(caught.value).splitlines()) == 1


@pytest.mark.parametrize("suffix", ["png", "bmp", "tif", "ppm", "qoi", "jp2", "webp"])
def test_a_losslessly_saved_image_comes_back(tmp_path: Path, suffix: str) -> None:
    options: dict[str, Any] = {"webp": {"lossless": True}}.get(suffix, {})
    path = save(tmp_path / f"image.{suffix}", Image.fromarray(rgb(5, 7)), **options)
    for name in (path, str(path)):
        image = read_image(name)
        assert image.dtype == np.uint8
        assert image.flags.writeable
        np.testing.assert_array_equal(image, rgb(5, 7))


def test_the_content_decides_the_format_not_the_suffix(tmp_path: Path) -> None:
    path = save(tmp_path / "photo.jpg", Image.fromarray(rgb(5, 7)), format="PNG")
    np.testing.assert_array_equal(read_image(path), rgb(5, 7))


@pytest.mark.parametrize("orientation", range(1, 9))
@pytest.mark.parametrize("suffix", ["png", "jpg", "tif"])
def test_each_exif_orientation_is_undone(tmp_path: Path, orientation: int, suffix: str) -> None:
    """EXIF says where row 0 and column 0 of the stored image belong; here that is applied to the array by hand."""
    upright = np.repeat(np.repeat(rgb(3, 2), 16, axis=0), 16, axis=1)
    stored = {
        1: upright,
        2: upright[:, ::-1],
        3: upright[::-1, ::-1],
        4: upright[::-1],
        5: upright.swapaxes(0, 1),
        6: upright.swapaxes(0, 1)[::-1],
        7: upright.swapaxes(0, 1)[::-1, ::-1],
        8: upright.swapaxes(0, 1)[:, ::-1],
    }[orientation]
    exif = Image.Exif()
    exif[0x0112] = orientation
    options: dict[str, Any] = {"quality": 100, "subsampling": 0} if suffix == "jpg" else {}
    path = save(tmp_path / f"turned.{suffix}", Image.fromarray(stored), exif=exif, **options)
    difference = np.abs(read_image(path).astype(int) - upright)
    assert difference.max() <= (3 if suffix == "jpg" else 0)


def test_a_png_that_ends_with_its_exif_is_turned_too(tmp_path: Path) -> None:
    exif = Image.Exif()
    exif[0x0112] = 6
    path = save(tmp_path / "image.png", Image.fromarray(rgb(4, 6)), exif=exif)
    content = path.read_bytes()
    start = content.index(b"eXIf") - 4
    end = start + 12 + int.from_bytes(content[start : start + 4])
    path.write_bytes(content[:start] + content[end:-12] + content[start:end] + content[-12:])
    np.testing.assert_array_equal(read_image(path), np.rot90(rgb(4, 6), -1))


@pytest.mark.parametrize("exif", [b"junkjunkjunk", b"Exif\0\0MM\0*\0\0\0\x08\0\x05abc"])
@pytest.mark.parametrize("suffix", ["png", "jpg"])
def test_damaged_exif_does_not_keep_the_pixels_from_being_read(tmp_path: Path, suffix: str, exif: bytes) -> None:
    path = save(tmp_path / f"image.{suffix}", Image.new("RGB", (6, 4), WHITE), exif=exif)
    np.testing.assert_array_equal(read_image(path), np.full((4, 6, 3), 255))


def test_a_damaged_tag_beside_the_orientation_does_no_harm(tmp_path: Path) -> None:
    exif = Image.Exif()
    exif[0x0112], exif[0x010F] = 6, "maker"
    path = save(tmp_path / "image.jpg", Image.new("RGB", (6, 4), WHITE), exif=exif)
    # Big-endian in Pillow's hands: the maker becomes an image width that is text.
    damaged = path.read_bytes().replace(b"\x01\x0f\0\x02", b"\x01\0\0\x02")
    assert damaged != path.read_bytes()
    path.write_bytes(damaged)
    assert read_image(path).shape == (6, 4, 3)


def test_grey_and_black_and_white_become_three_equal_channels(tmp_path: Path) -> None:
    grey = rgb(4, 5)[..., 0]
    np.testing.assert_array_equal(
        read_image(save(tmp_path / "grey.png", Image.fromarray(grey))), np.stack([grey] * 3, axis=2)
    )
    bits = grey > 127
    np.testing.assert_array_equal(
        read_image(save(tmp_path / "bits.png", Image.fromarray(bits))), np.stack([bits * 255] * 3, axis=2)
    )


def test_a_palette_is_looked_up(tmp_path: Path) -> None:
    image = Image.fromarray(np.array([[0, 1], [2, 1]], np.uint8)).convert("P")
    image.putpalette([1, 2, 3, 40, 50, 60, 255, 0, 0])
    expected = [[[1, 2, 3], [40, 50, 60]], [[255, 0, 0], [40, 50, 60]]]
    np.testing.assert_array_equal(read_image(save(tmp_path / "palette.png", image)), expected)


@pytest.mark.parametrize("suffix", ["png", "tif"])
def test_alpha_shows_white_behind_the_image(tmp_path: Path, suffix: str) -> None:
    """By hand: alpha 0 is white, 255 is the colour, 51 (a fifth) is 255 - (255 - colour) / 5."""
    pixels = np.array([[[10, 20, 30, 0], [10, 20, 30, 255], [0, 105, 255, 51]]], np.uint8)
    image = read_image(save(tmp_path / f"alpha.{suffix}", Image.fromarray(pixels)))
    np.testing.assert_array_equal(image, [[WHITE, (10, 20, 30), (204, 225, 255)]])


def test_grey_alpha_shows_white_behind_the_image(tmp_path: Path) -> None:
    pixels = np.array([[[10, 0], [10, 255], [105, 51]]], np.uint8)
    image = read_image(save(tmp_path / "alpha.png", _grey_alpha(pixels)))
    np.testing.assert_array_equal(image[..., 0], [[255, 10, 225]])


def _grey_alpha(pixels: NDArray[np.uint8]) -> Image.Image:
    return Image.merge("LA", [Image.fromarray(pixels[..., channel]) for channel in (0, 1)])


@pytest.mark.parametrize("transparency", [1, b"\xff\x00\xff"], ids=["one entry", "an alpha per entry"])
def test_a_transparent_palette_entry_is_white(tmp_path: Path, transparency: int | bytes) -> None:
    image = Image.fromarray(np.array([[0, 1, 2]], np.uint8)).convert("P")
    image.putpalette([1, 2, 3, 40, 50, 60, *RED])
    path = save(tmp_path / "palette.png", image, transparency=transparency)
    np.testing.assert_array_equal(read_image(path), [[(1, 2, 3), WHITE, RED]])


def test_a_transparent_colour_is_white(tmp_path: Path) -> None:
    image = Image.fromarray(np.array([[RED, (1, 2, 3)]], np.uint8))
    path = save(tmp_path / "colour.png", image, transparency=RED)
    np.testing.assert_array_equal(read_image(path), [[WHITE, (1, 2, 3)]])


def test_a_transparent_16_bit_grey_is_white(tmp_path: Path) -> None:
    path = save(tmp_path / "grey.png", Image.fromarray(np.array([[257, 514]], np.uint16)), transparency=257)
    np.testing.assert_array_equal(read_image(path)[..., 0], [[255, 2]])


@pytest.mark.parametrize("suffix", ["png", "tif", "pgm"])
def test_16_bit_grey_is_scaled_and_rounded_not_clipped(tmp_path: Path, suffix: str) -> None:
    """Every one of the 65536 values."""
    values = np.arange(65536, dtype=np.uint16).reshape(256, 256)
    image = read_image(save(tmp_path / f"deep.{suffix}", Image.fromarray(values)))
    assert image.dtype == np.uint8
    np.testing.assert_array_equal(image, np.rint(values * 255.0 / 65535.0)[..., None].repeat(3, axis=2))


def test_32_bit_grey_is_read_only_within_16_bits(tmp_path: Path) -> None:
    values = np.array([[0, 32768, 65535]], np.int32)
    path = save(tmp_path / "wide.tif", Image.fromarray(values))
    np.testing.assert_array_equal(read_image(path)[..., 0], [[0, 128, 255]])
    for bad in (-1, 65536):
        values[0, 0] = bad
        refused(
            save(tmp_path / "wider.tif", Image.fromarray(values)), f"from 0 to 65535, got values from .*{bad}.*; save"
        )


def test_cmyk_becomes_rgb(tmp_path: Path) -> None:
    image = Image.merge("CMYK", [Image.new("L", (3, 2), value) for value in (0, 255, 255, 0)])
    np.testing.assert_array_equal(read_image(save(tmp_path / "cmyk.tif", image)), np.broadcast_to(RED, (2, 3, 3)))
    assert np.abs(read_image(save(tmp_path / "cmyk.jpg", image)).astype(int) - RED).max() <= 3


@pytest.mark.parametrize("suffix", ["gif", "png", "webp", "tif"])
def test_the_first_of_several_frames_counts(tmp_path: Path, suffix: str) -> None:
    frames = [Image.new("RGB", (3, 2), color) for color in (RED, (0, 255, 0), (0, 0, 255))]
    options: dict[str, Any] = {"webp": {"lossless": True}}.get(suffix, {})
    path = save(tmp_path / f"frames.{suffix}", frames[0], save_all=True, append_images=frames[1:], **options)
    with Image.open(path) as image:
        assert image.n_frames == 3  # type: ignore[attr-defined]
    np.testing.assert_array_equal(read_image(path), np.broadcast_to(RED, (2, 3, 3)))


def test_float_pixels_are_refused(tmp_path: Path) -> None:
    path = save(tmp_path / "float.tif", Image.fromarray(np.ones((2, 3), np.float32)))
    refused(path, r"float\.tif: expected 8- or 16-bit integer pixels, got 32-bit float ones; save it as an 8-bit PNG")


def bomb(path: Path, width: int, height: int) -> Path:
    """A PNG that says it is width x height and holds nothing."""

    def chunk(kind: bytes, data: bytes) -> bytes:
        return len(data).to_bytes(4) + kind + data + zlib.crc32(kind + data).to_bytes(4)

    header = width.to_bytes(4) + height.to_bytes(4) + b"\x08\x02\0\0\0"
    path.write_bytes(b"\x89PNG\r\n\x1a\n" + chunk(b"IHDR", header) + chunk(b"IDAT", b"") + chunk(b"IEND", b""))
    return path


def test_a_decompression_bomb_is_refused_by_its_header(tmp_path: Path) -> None:
    refused(
        bomb(tmp_path / "bomb.png", 60_000, 60_000), "expected at most 178,956,970 pixels, got .*3600000000.*; scale"
    )


def test_twice_pillows_limit_is_read_without_a_warning(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(Image, "MAX_IMAGE_PIXELS", 30)
    image = read_image(save(tmp_path / "large.png", Image.fromarray(rgb(6, 10))))
    np.testing.assert_array_equal(image, rgb(6, 10))
    refused(save(tmp_path / "larger.png", Image.fromarray(rgb(6, 11))), "at most 60 pixels")


@pytest.mark.parametrize("suffix", ["png", "jpg", "gif", "bmp", "tif", "webp", "jp2", "ppm", "qoi"])
@pytest.mark.parametrize("part", [0.02, 0.5, 0.9])
def test_a_truncated_image_is_refused(tmp_path: Path, suffix: str, part: float) -> None:
    path = save(tmp_path / f"short.{suffix}", Image.fromarray(rgb(40, 50)))
    content = path.read_bytes()
    path.write_bytes(content[: int(len(content) * part)])
    refused(path, r"short\.\w+: expected an image.* got .*; ")


def test_damaged_images_are_read_or_refused_but_nothing_else(tmp_path: Path) -> None:
    """Bytes changed at random, in formats with many chances to go wrong."""
    rng = np.random.default_rng(31)
    for suffix in ("png", "jpg", "gif", "bmp", "webp", "ico"):
        path = save(tmp_path / f"image.{suffix}", Image.fromarray(rgb(16, 16)))
        content = np.frombuffer(path.read_bytes(), np.uint8)
        for _ in range(60):
            damaged = content.copy()
            damaged[rng.integers(0, min(len(content), 120), 3)] = rng.integers(0, 256, 3)
            path.write_bytes(damaged.tobytes())
            with contextlib.suppress(ImageError):
                assert read_image(path).shape[2] == 3


def test_what_is_no_image_is_refused_with_advice(tmp_path: Path) -> None:
    text = tmp_path / "text.png"
    text.write_text("not an image\n" * 9)
    refused(text, r"text\.png: expected an image \(.*JPEG.*PNG.*\), got something else; convert it to PNG")
    empty = tmp_path / "empty.jpg"
    empty.touch()
    refused(empty, r"empty\.jpg: expected an image file, got an empty file; ")
    refused(tmp_path, "got a directory; name a file in it")
    refused(tmp_path / "none.png", "got No such file or directory; check the path")
    refused(text / "inside.png", "got Not a directory; check the path")
    refused("/dev/null", "got a pipe, socket or device")
    with pytest.raises(ImageError, match="embedded null"):
        read_image("a\0b.png")


@needs.PIPES
def test_a_pipe_is_refused_without_waiting_for_it(tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "pipe.png")
    refused(tmp_path / "pipe.png", "got a pipe, socket or device; copy its content into a file")


def test_a_file_that_may_not_be_read_is_an_image_error(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(path: Path, mode: str) -> None:
        raise PermissionError(13, "Permission denied", str(path))

    path = save(tmp_path / "secret.png", Image.fromarray(rgb(2, 3)))
    monkeypatch.setattr(Path, "open", refuse)
    refused(path, "Permission denied")


def test_a_postscript_file_is_not_run(tmp_path: Path) -> None:
    path = save(tmp_path / "program.eps", Image.fromarray(rgb(5, 7)))
    refused(path, "got something else")


def test_the_message_stays_on_one_line_when_the_name_does_not(tmp_path: Path) -> None:
    with pytest.raises(ImageError, match=r"two lines\.png: expected") as caught:
        read_image(tmp_path / "two\nlines.png")
    assert "\n" not in str(caught.value)


def test_threads_leave_the_warning_filters_as_they_were(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The second to begin ends last, the order in which each alone would restore the other's filters."""
    path = save(tmp_path / "image.png", Image.fromarray(rgb(5, 5)))
    delays, really_open = iter((0.05, 0.1)), Image.open

    def slowly(*arguments: Any, **options: Any) -> Any:
        time.sleep(next(delays))
        return really_open(*arguments, **options)

    monkeypatch.setattr(Image, "open", slowly)
    before = list(warnings.filters)
    threads = [threading.Thread(target=read_image, args=(path,)) for _ in range(2)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert list(warnings.filters) == before


def test_a_directory_gives_its_images_in_the_order_people_number_them(tmp_path: Path) -> None:
    """Case does not count; of two equal numbers the suffix decides; digits of other scripts are letters."""
    wanted = ["a.JPEG", "img1.png", "img2.JPG", "img02.png", "img10.webp", "Img11.bmp", "z.tif", "٣3.png"]
    for name in [*wanted, "notes.txt", "weights.h5", ".hidden.png", "._img1.png", "page.pdf", "program.eps", "png"]:
        (tmp_path / name).touch()
    (tmp_path / "deeper.png").mkdir()
    (tmp_path / "deeper.png" / "inside.png").touch()
    assert [path.name for path in find_images([tmp_path])] == wanted


def test_files_are_taken_as_named_and_arguments_keep_their_order(tmp_path: Path) -> None:
    (tmp_path / "directory").mkdir()
    for name in ("z.bin", "a.png", "directory/2.png", "directory/1.png"):
        (tmp_path / name).touch()
    paths: list[Path | str] = [tmp_path / "z.bin", str(tmp_path / "directory"), tmp_path / "a.png", tmp_path / "a.png"]
    names = [path.relative_to(tmp_path).as_posix() for path in find_images(paths)]
    assert names == ["z.bin", "directory/1.png", "directory/2.png", "a.png", "a.png"]
    assert find_images([]) == []


@needs.LINKS
def test_a_broken_link_in_a_directory_is_not_passed_over(tmp_path: Path) -> None:
    (tmp_path / "lost.png").symlink_to(tmp_path / "nowhere")
    (path,) = find_images([tmp_path])
    refused(path, "got No such file or directory")


def test_a_directory_without_images_and_a_missing_path_are_refused(tmp_path: Path) -> None:
    (tmp_path / "notes.txt").touch()
    with pytest.raises(
        ImageError, match=r"expected images \(.*\.jpg .*\.png .*\), got a directory with 1 files, none of them such"
    ):
        find_images([tmp_path])
    with pytest.raises(ImageError, match=r"none\.png: expected .*, got No such file or directory; check the path"):
        find_images([tmp_path / "none.png"])


def test_a_directory_that_may_not_be_listed_is_an_image_error(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(path: Path) -> None:
        raise PermissionError(13, "Permission denied", str(path))

    monkeypatch.setattr(Path, "iterdir", refuse)
    with pytest.raises(ImageError, match="got Permission denied; check the path and its permissions"):
        find_images([tmp_path])


def test_every_format_offered_is_one_pillow_knows() -> None:
    Image.init()
    assert set(FORMATS) <= set(Image.registered_extensions().values())
