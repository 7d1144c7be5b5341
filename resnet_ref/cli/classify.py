"""resnet-ref classify: what is in the picture."""

from typing import Any

import click
import numpy as np

from resnet_ref.batches import MOST_READERS, computed
from resnet_ref.cli.options import (
    as_json,
    echo,
    echo_error,
    echo_json,
    model_options,
    progress_bar,
)
from resnet_ref.errors import ImageError, WeightsError
from resnet_ref.fleet import open_fleet
from resnet_ref.images import IsolatedReader, find_images
from resnet_ref.model import Model
from resnet_ref.weights_file import load_weights_apart


@click.command(short_help="Name the likeliest classes of images.")
@click.argument("images", nargs=-1, required=True, metavar="IMAGE|DIR...")
@model_options
@click.option("--top", type=click.IntRange(1), default=3, show_default=True, help="Classes to show of each image.")
@as_json
def classify(
    images: tuple[str, ...],
    weights: str | None,
    device: str,
    precision: str,
    threads: int | None,
    batch_size: int,
    top: int,
    as_json: bool,
) -> int:
    """Classify images, or every image in a folder: the likeliest classes and their probabilities.

    A file that cannot be read is reported and left out; the exit status is then 2. A last line names the precision
    and the device where it is not float32; with --json each entry names both.

    \b
    resnet-ref classify digit.png
    resnet-ref classify photos/ --weights resnet_v1_50.h5 --top 5 --json
    """
    files = find_images(images)
    failed: list[ImageError] = []
    results: list[dict[str, Any]] = []
    with IsolatedReader(MOST_READERS) as reader:
        fleet = open_fleet(load_weights_apart(weights), device, precision, threads)
        model = fleet.model
        if model.network.num_classes is None:
            raise WeightsError(f"{model.weights.path} has no logits, so it names no class; use `resnet-ref features`")
        ran = {"device": model.tier.device, "precision": model.precision}
        with progress_bar(len(files), "classifying") as bar:
            for names, probabilities in computed(fleet, files, batch_size, failed.append, reader=reader):
                for name, row in zip(names, probabilities, strict=True):
                    if not np.isfinite(row).all():
                        failed.append(
                            ImageError(f"{name}: {model.weights.path} gives probabilities that are no numbers")
                        )
                        continue
                    results.append({"file": str(name), "predictions": likeliest(model, row, top), **ran})
                bar.update(len(names))
    if as_json:
        echo_json(results)
    else:
        for result in results:
            echo(result["file"])
            for found in result["predictions"]:
                echo(f"  {100 * found['probability']:6.2f} %  {found['label']}")
        if results and model.precision != "float32":
            echo(f"computed in {model.precision} on {model.tier.device}")
    for error in failed:
        echo_error(str(error))
    return 2 if failed else 0


def likeliest(model: Model, probabilities: Any, top: int) -> list[dict[str, Any]]:
    """The `top` likeliest classes of one image, [..., num_classes]; over a map of logits, the mean over its pixels."""
    flat = probabilities.reshape(-1, probabilities.shape[-1]).mean(axis=0)
    return [
        {
            "index": int(index),
            "label": model.labels[index] if model.labels else str(index),
            "probability": float(flat[index]),
        }
        for index in np.argsort(-flat, kind="stable")[:top]
    ]
