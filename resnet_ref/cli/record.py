"""resnet-ref record: what slim itself computes, for `verify`."""

from typing import Any

import click

from resnet_ref.cli.options import (
    as_json,
    checkpoint_options,
    described,
    echo,
    echo_json,
    weights_or_digits,
)
from resnet_ref.images import IsolatedReader, find_images
from resnet_ref.oracle.record import open_source
from resnet_ref.oracle.record import record as record_slim
from resnet_ref.tables import counted
from resnet_ref.weights.atomic import require_writable


@click.command(short_help="Record what slim computes, under TensorFlow.")
@click.argument("source")
@click.argument("images", nargs=-1, required=True, metavar="IMAGE|DIR...")
@click.option("-o", "--output", required=True, metavar="FILE.h5", help="The file to write, replaced if it is there.")
@click.option(
    "--sample", type=click.IntRange(1), help="Keep at most so many values of each end point; all if not given."
)
@click.option("--training", is_flag=True, help="Batch norm in training mode.")
@checkpoint_options
@as_json
def record(
    source: str,
    images: tuple[str, ...],
    output: str,
    sample: int | None,
    training: bool,
    as_json: bool,
    **options: Any,
) -> None:
    """Run slim on a checkpoint or a weights file, and on images, and record every end point.

    SOURCE is what `convert` takes, or a weights file, or `digits` for the network that ships. TensorFlow decodes and
    preprocesses the images; the recording holds their files, the arrays that slim saw, its end points, labels, call and
    versions. Needs `pip install 'resnet-ref[oracle]'`.

    \b
    resnet-ref record resnet_v1_50.ckpt photo.jpg -o slim.h5
    resnet-ref record digits weights/digits/ -o slim.h5 --sample 1000
    """
    arguments = described(**options)
    files = find_images(images)
    path = weights_or_digits(source)
    require_writable(output, [*files, *([path] if path else [])])
    with IsolatedReader() as reader:  # before TensorFlow decodes them here
        for file in files:
            reader.check(file)
    opened = open_source(path, **arguments)
    facts = record_slim(opened, files, output, sample=sample, is_training=training)
    if as_json:
        kept = {
            "sample": facts.sample,
            "end_points": len(facts.end_points),
            "images": [i["name"] for i in facts.images],
        }
        echo_json({"output": output, "network": facts.network, "versions": dict(facts.versions), **kept})
    else:
        kept_text = "whole" if sample is None else f"at most {sample} values of each"
        images_text = counted(len(files), "image")
        echo(f"slim under TensorFlow {facts.versions['tensorflow']}: {opened.network.function}, {images_text}")
        echo(f"{len(facts.end_points)} end points, {kept_text} -> {output}")
