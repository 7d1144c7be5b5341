"""slim's preprocess_for_eval in TensorFlow, composed of the operations it uses.

Source: preprocessing/vgg_preprocessing.py of the TensorFlow models repository.
"""

from typing import Any

from resnet_ref.oracle.environment import tensorflow

# What TensorFlow decodes itself, by how such a file begins.
_DECODED = (b"\xff\xd8\xff", b"\x89PNG", b"GIF8", b"BM")


def decode(data: bytes) -> Any:
    """Pixels [H, W, 3] of a JPEG, PNG, GIF or BMP file, as TensorFlow decodes them; None for another format.

    A JPEG is decoded with the accurate DCT: TensorFlow's default is a faster one, up to 5 levels away from everybody
    else's.
    """
    if not data.startswith(_DECODED):
        return None
    tf, _ = tensorflow()
    if data.startswith(_DECODED[0]):
        return tf.io.decode_jpeg(data, channels=3, dct_method="INTEGER_ACCURATE").numpy()
    return tf.io.decode_image(data, channels=3, expand_animations=False).numpy()


def preprocess(image: Any, resize_side: int, height: int, width: int, means: Any) -> Any:
    """Pixels [H, W, 3], 0..255 -> [height, width, 3] float32: resize, central crop, less the channels' means."""
    tf, _ = tensorflow()
    resized = resize(image, *smallest_size_at_least(image.shape[0], image.shape[1], resize_side))
    offset = [tf.cast((side - kept) / 2, tf.int32) for side, kept in zip(resized.shape, (height, width), strict=False)]
    cropped = tf.slice(resized, [*offset, 0], [height, width, 3])
    return (tf.cast(cropped, tf.float32) - tf.constant(means, tf.float32)).numpy()


def resize(image: Any, height: int, width: int) -> Any:
    """TensorFlow 1's bilinear resize of [H, W, C] to [height, width, C]."""
    tf, _ = tensorflow()
    return tf.compat.v1.image.resize_bilinear(image[None], [height, width], align_corners=False).numpy()[0]


def smallest_size_at_least(heights: Any, widths: Any, sides: Any) -> Any:
    """slim's _smallest_size_at_least, elementwise: [..., 2]."""
    tf, _ = tensorflow()
    h, w, s = (tf.cast(tf.constant(v, tf.int32), tf.float32) for v in (heights, widths, sides))
    scale = tf.where(h > w, s / w, s / h)
    return tf.cast(tf.math.rint(tf.stack([h * scale, w * scale], axis=-1)), tf.int32).numpy()
