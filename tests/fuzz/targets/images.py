"""Images through decoding and preprocessing. Pillow's codecs run in this process: a crash here is theirs."""

import io

import numpy as np
from PIL import Image, features

from fuzz.guard import ours
from resnet_ref import Preprocessing
from resnet_ref.images import decode_image

_FORMATS = ("PNG", "JPEG", "GIF", "BMP", "TIFF", "WEBP", "PPM", "ICO", "JPEG2000")
_MOST_PIXELS = 1 << 18  # Pillow's own limit is a thousand times this, and takes a second
_prepare = Preprocessing(resize_side=32, height=32, width=32)


def seeds() -> list[bytes]:
    pixels = np.random.default_rng(1).integers(0, 256, (9, 7, 3), np.uint8)
    image = Image.fromarray(pixels)
    kinds = [
        kind
        for kind in _FORMATS
        if {"WEBP": "webp", "JPEG2000": "jpg_2000"}.get(kind) in (None, *features.get_supported())
    ]
    made = [_saved(image, kind) for kind in kinds]
    made += [_saved(image.convert(mode), "PNG") for mode in ("L", "P", "LA", "RGBA", "1")]
    made += [
        _saved(Image.fromarray(pixels[..., 0].astype(np.uint16) * 257), "PNG"),
        _saved(image.convert("CMYK"), "JPEG"),
    ]
    frames = io.BytesIO()
    image.save(frames, "GIF", save_all=True, append_images=[image.rotate(90)])
    exif = Image.Exif()
    exif[0x112] = 6
    turned = io.BytesIO()
    image.save(turned, "JPEG", exif=exif)
    return [*made, frames.getvalue(), turned.getvalue()]


def one(data: bytes) -> None:
    before, Image.MAX_IMAGE_PIXELS = Image.MAX_IMAGE_PIXELS, _MOST_PIXELS
    try:
        ours(lambda: _read(data))
    finally:
        Image.MAX_IMAGE_PIXELS = before


def _read(data: bytes) -> None:
    image = decode_image(data, "image")
    assert image.dtype == np.uint8
    assert image.shape[2] == 3
    assert image.size <= 2 * 3 * _MOST_PIXELS
    prepared = _prepare(image)
    assert prepared.shape == (32, 32, 3)
    assert np.isfinite(prepared).all()


def _saved(image: Image.Image, kind: str) -> bytes:
    out = io.BytesIO()
    image.save(out, kind)
    return out.getvalue()
