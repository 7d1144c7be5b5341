"""resnet-ref convert: from a checkpoint, or a file of another framework, to a weights file."""

from collections import Counter
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import click

from resnet_ref.cli.options import as_json, checkpoint_options, described, echo, echo_json, progress_bar
from resnet_ref.convert import Conversion
from resnet_ref.convert import convert as convert_checkpoint
from resnet_ref.errors import WeightsError


@click.command(short_help="Make a weights file of a checkpoint.")
@click.argument("source")
@click.argument("destination", metavar="DEST.h5")
@checkpoint_options
@click.option("--strict/--no-strict", default=True, show_default=True, help="Refuse what is not used, or leave it out.")
@click.option("--force", is_flag=True, help="Replace DEST.h5 if it is there.")
@as_json
def convert(source: str, destination: str, strict: bool, force: bool, as_json: bool, **options: Any) -> None:
    """Convert a TensorFlow checkpoint of slim's ResNet v1, or a ResNet of Keras or PyTorch, without these frameworks.

    SOURCE is any of: a V1 file, a V2 prefix, one of its .index, .data or .meta files, a folder, a TensorFlow 2
    checkpoint, or a .tar.gz of these; keras.applications' ResNet50, 101 or 152 as .h5, .weights.h5 or .keras;
    torchvision's resnet50, 101 or 152 as .pth or .safetensors. Content decides, not the name. Optimizer slots, moving
    averages of weights and the step are left out.

    \b
    resnet-ref convert resnet_v1_50_2016_08_28.tar.gz resnet_v1_50.h5
    resnet-ref convert train_dir/ flowers.h5 --labels labels.txt
    resnet-ref convert resnet50-0676ba61.pth resnet50.h5
    """
    if Path(destination).is_file() and not force:
        raise WeightsError(f"{destination} is there already; pass --force to replace it")
    arguments = described(**options)
    with progress_bar(1, "converting") as bar:

        def progress(name: str, done: int, total: int) -> None:
            bar.length = total
            bar.update(done - bar.pos)

        made = convert_checkpoint(source, destination, **arguments, strict=strict, progress=progress)
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
        "assumed": made.assumed,
    }


def _units(blocks: Sequence[Mapping[str, Any]]) -> str:
    """The strides of each block's units, which tell networks of the same variables apart."""
    strides = {block["scope"]: [unit["stride"] for unit in block["args"]] for block in blocks}
    return f"[{', '.join(f'{scope}: strides {each}' for scope, each in strides.items())}]"


def _images(preprocessing: Mapping[str, Any] | None) -> str:
    """How they are prepared."""
    if preprocessing is None:
        return "as the network takes them"
    shown = (f"{name} {value}" for name, value in preprocessing.items() if name != "name")
    return f"as {preprocessing['name']} prepares them: {', '.join(shown)}"


def _echo(destination: str, made: Conversion) -> None:
    call = ", ".join(
        f"{name}={_units(value) if name == 'blocks' else repr(value)}"
        for name, value in made.network.to_json().items()
        if name != "function"
    )
    echo(f"{made.source['kind']} -> {destination}")
    echo(f"network    {made.network.function}({call})")
    echo(f"labels     {f'{made.labels[0]} ... {made.labels[-1]}' if made.labels else 'none'}")
    echo(f"images     {_images(made.preprocessing)}")
    echo(f"written    {len(made.written)} variables")
    if made.assumed:
        echo(f"assumed    {made.assumed}")
    for reason, count in Counter(made.skipped.values()).items():
        first = next(name for name, why in made.skipped.items() if why == reason)
        echo(f"left out   {count} x {reason}: {first}{' ...' if count > 1 else ''}")
