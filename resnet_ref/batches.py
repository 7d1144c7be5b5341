"""Image files as a model takes them, a batch at a time."""

from collections.abc import Callable, Iterator, Sequence
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from resnet_ref.errors import ImageError, WeightsError
from resnet_ref.images import read_image
from resnet_ref.model import Model


def batches(
    model: Model, files: Sequence[Path], size: int, unreadable: Callable[[ImageError], None]
) -> Iterator[tuple[list[Path], NDArray[np.float32]]]:
    """(files, images [n, H, W, 3]) for up to `size` files at a time, preprocessed as the weights file says.

    A file that is no image goes to `unreadable` and is left out; to stop there, raise. WeightsError where the weights
    file names no preprocessing.
    """
    if model.preprocessing is None:
        raise WeightsError(
            f"{model.weights.path} names no preprocessing, so image files cannot be prepared for it; "
            'save it with preprocessing=dict(name="vgg"), or call the model with arrays'
        )
    for start in range(0, len(files), size):
        read: list[Path] = []
        images: list[NDArray[np.float32]] = []
        for file in files[start : start + size]:
            try:
                images.append(model.preprocessing(read_image(file)))
                read.append(file)
            except ImageError as error:
                unreadable(error)
        if read:
            yield read, np.stack(images)
