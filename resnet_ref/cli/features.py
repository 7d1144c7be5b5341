"""resnet-ref features: end points of many images, in one HDF5 file."""

from collections.abc import Sequence
from pathlib import Path

import click
import h5py
import numpy as np

from resnet_ref.batches import MOST_READERS, computed
from resnet_ref.cli.options import as_json, echo, echo_json, model_options, progress_bar
from resnet_ref.errors import ImageError, WeightsError
from resnet_ref.fleet import Fleet, open_fleet
from resnet_ref.images import IsolatedReader, find_images
from resnet_ref.weights.atomic import require_another
from resnet_ref.weights.finite import not_finite
from resnet_ref.weights.hdf5 import creating
from resnet_ref.weights.interruption import uninterrupted
from resnet_ref.weights_file import load_weights_apart


@click.command(short_help="Write end points of images to a file.")
@click.argument("images", nargs=-1, required=True, metavar="IMAGE|DIR...")
@click.option("-o", "--output", required=True, metavar="FILE.h5", help="The file to write, replaced if it is there.")
@click.option(
    "--end-point", "end_points", multiple=True, metavar="NAME", default=("global_pool",), show_default=True,
    help="As slim names it; may be given several times.",
)  # fmt: skip
@model_options
@as_json
def features(
    images: tuple[str, ...],
    output: str,
    end_points: tuple[str, ...],
    weights: str | None,
    device: str,
    precision: str,
    threads: int | None,
    batch_size: int,
    as_json: bool,
) -> None:
    """Compute end points of images, or of every image in a folder, and write them to an HDF5 file.

    The file holds one float32 dataset [images, H, W, C] per end point, under its name with dots for slashes, and
    `files`, the images' names in the same order; its attributes name the network, the device, how many of them, and the
    precision. It is written whole or not at all.

    \b
    resnet-ref features photos/ -o features.h5 --weights resnet_v1_50.h5
    resnet-ref features a.png b.png -o f.h5 --end-point resnet_v1_50/block3 --end-point global_pool
    """
    files = find_images(images)
    with IsolatedReader(MOST_READERS) as reader:
        fleet = open_fleet(load_weights_apart(weights), device, precision, threads)
        require_another(output, [*files, fleet.model.weights.path])
        with creating(output) as store, progress_bar(len(files), "computing") as bar:
            shapes: dict[str, list[int]] = {}
            done = 0
            for names, (_, values) in computed(fleet, files, batch_size, _stop, end_points, reader):
                for name, value in values.items():
                    for file, row in zip(names, value, strict=True):
                        if bad := not_finite(row):
                            raise WeightsError(f"{file}: {fleet.model.weights.path} gives {bad} of {name}")
                    # HDF5 has no dataset inside another, as block1/unit_1 is inside block1.
                    key = name.replace("/", ".")
                    with uninterrupted():
                        if key not in store:
                            store.create_dataset(key, (len(files), *value.shape[1:]), np.float32)
                            shapes[key] = list(store[key].shape)
                        store[key][done : done + len(value)] = value
                done += len(names)
                bar.update(len(names))
            with uninterrupted():
                _describe(store, files, fleet)
    if as_json:
        echo_json({"output": output, "images": len(files), "end_points": shapes})
    else:
        for name, shape in shapes.items():
            echo(f"{name}  {shape}")
        echo(f"{len(files)} images -> {output}")


def _describe(store: h5py.File, files: Sequence[Path], fleet: Fleet) -> None:
    read = [str(file).encode("utf-8", "backslashreplace") for file in files]
    store["files"] = np.array(read, dtype=h5py.string_dtype())
    model = fleet.model
    network = {"network": model.network.function, "scope": model.network.scope}
    ran = {"device": model.tier.device, "devices": len(fleet.models), "precision": model.precision}
    store.attrs.update({**network, **ran})


def _stop(error: ImageError) -> None:
    raise error
