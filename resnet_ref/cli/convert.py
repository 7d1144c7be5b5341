"""resnet-ref convert: from a TensorFlow checkpoint to a weights file."""

import json
from collections import Counter
from functools import partial
from pathlib import Path
from typing import Any

import click

from resnet_ref.cli.options import as_json, echo_json, progress_bar
from resnet_ref.convert import Conversion
from resnet_ref.convert import convert as convert_checkpoint
from resnet_ref.errors import WeightsError
from resnet_ref.labels import read_labels
from resnet_ref.resnet_v1 import UNITS


@click.command(short_help="Make a weights file of a checkpoint.")
@click.argument("source")
@click.argument("destination", metavar="DEST.h5")
@click.option("--labels", metavar="FILE", help="Class names, one a line, or slim's labels.txt. ImageNet's are known.")
@click.option("--variant", type=click.Choice(tuple(UNITS)), help="Instead of what the variables show.")
@click.option("--scope", help="The network to take, where there are several.")
@click.option("--depth-multiplier", type=click.FloatRange(0), help="Instead of what the variables show.")
@click.option("--min-base-depth", type=click.IntRange(1), help="Instead of what the variables show.")
@click.option("--output-stride", type=click.IntRange(4), help="Of the network in the file; variables do not show it.")
@click.option("--network", metavar="FILE.json", help="The whole network, as in save_weights(network=...).")
@click.option("--preprocessing", metavar="FILE.json", help="As in save_weights(preprocessing=...); else slim's.")
@click.option("--force", is_flag=True, help="Replace DEST.h5 if it is there.")
@as_json
def convert(
    source: str, destination: str, labels: str | None, network: str | None, preprocessing: str | None, force: bool,
    as_json: bool, **options: Any,
) -> None:  # fmt: skip
    """Convert a TensorFlow checkpoint of slim's ResNet v1, without TensorFlow.

    SOURCE is any of: a V1 file, a V2 prefix, one of its .index, .data or .meta files, a folder, a TensorFlow 2
    checkpoint, or a .tar.gz of these. Optimizer slots, moving averages of weights and the step are left out.

    \b
    resnet-ref convert resnet_v1_50_2016_08_28.tar.gz resnet_v1_50.h5
    resnet-ref convert train_dir/ flowers.h5 --labels labels.txt
    """
    if Path(destination).is_file() and not force:
        raise WeightsError(f"{destination} is there already; pass --force to replace it")
    names = {"variant": "function"}
    overrides = {names.get(name, name): value for name, value in options.items() if value is not None}
    if network is not None:
        overrides = {**_read_json(network), **overrides}
    with progress_bar(1, "converting") as bar:

        def progress(name: str, done: int, total: int) -> None:
            bar.length = total
            bar.update(done - bar.pos)

        made = convert_checkpoint(
            source,
            destination,
            overrides=overrides,
            labels=None if labels is None else partial(read_labels, labels),
            preprocessing=None if preprocessing is None else _read_json(preprocessing),
            progress=progress,
        )
    if as_json:
        echo_json(_plain(destination, made))
    else:
        _echo(destination, made)


def _plain(destination: str, made: Conversion) -> dict[str, Any]:
    return {
        "destination": destination,
        "source": dict(made.source),
        "network": made.network.to_json(),
        "labels": len(made.labels) if made.labels else 0,
        "preprocessing": made.preprocessing,
        "written": list(made.written),
        "skipped": dict(made.skipped),
    }


def _echo(destination: str, made: Conversion) -> None:
    call = ", ".join(f"{name}={value!r}" for name, value in made.network.to_json().items() if name != "function")
    click.echo(f"{made.source['kind']} -> {destination}")
    click.echo(f"network    {made.network.function}({call})")
    click.echo(f"labels     {f'{made.labels[0]} ... {made.labels[-1]}' if made.labels else 'none'}")
    click.echo(f"written    {len(made.written)} variables")
    for reason, count in Counter(made.skipped.values()).items():
        first = next(name for name, why in made.skipped.items() if why == reason)
        click.echo(f"left out   {count} x {reason}: {first}{' ...' if count > 1 else ''}")


def _read_json(path: str) -> dict[str, Any]:
    try:
        data = json.loads(Path(path).read_text("utf-8"))
    except OSError as error:
        raise WeightsError(f"cannot read {path}: {error.strerror}") from None
    except ValueError as error:
        raise WeightsError(f"{path} is no JSON: {error}") from None
    if not isinstance(data, dict):
        raise WeightsError(f"{path} must hold a JSON object, got {type(data).__name__}")
    return data
