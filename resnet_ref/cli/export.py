"""resnet-ref export: from a weights file to a TensorFlow checkpoint or safetensors."""

import os
from pathlib import Path
from typing import Any

import click

from resnet_ref.cli.options import as_json, echo_json, echo_text, weights_or_digits
from resnet_ref.errors import WeightsError
from resnet_ref.export import FORMATS, LAYOUT, Exported, files_of, format_of
from resnet_ref.export import export as export_weights
from resnet_ref.network import Network
from resnet_ref.weights_file import Weights, load_weights_apart

_PADDED = (
    "; slim's pool1 cannot be padded so: give it padding='VALID', on what tf.pad made 1 wider on all sides, of -inf"
)


@click.command(short_help="Make a checkpoint, or safetensors, of a weights file.")
@click.argument("weights")
@click.argument("destination", metavar="DEST")
@click.option("--format", type=click.Choice(FORMATS), help="Instead of what DEST's suffix says.")
@click.option("--force", is_flag=True, help="Replace what is there.")
@as_json
def export(weights: str, destination: str, format: str | None, force: bool, as_json: bool) -> None:
    """Write the variables of a weights file for another framework.

    WEIGHTS is a weights file, or digits for the network that ships. DEST.safetensors becomes one file with names,
    layouts and description. DEST.ckpt, or DEST without a suffix, is the prefix of a TensorFlow checkpoint (V2) that
    slim restores.

    \b
    resnet-ref export resnet_v1_50.h5 resnet_v1_50.ckpt
    resnet-ref export digits digits.safetensors
    """
    format = format_of(destination, format)
    there = [file for file in files_of(destination, format) if os.path.isfile(file)]
    if there and not force:
        raise WeightsError(f"{there[0]} is there already; pass --force to replace it")
    loaded = load_weights_apart(weights_or_digits(weights))
    made = export_weights(loaded, destination, format)
    if as_json:
        echo_json(_plain(destination, loaded, made))
    else:
        echo_text("\n".join(_lines(destination, loaded, made)))


def _plain(destination: str, weights: Weights, made: Exported) -> dict[str, Any]:
    return {
        "destination": destination,
        "format": made.format,
        "files": [str(file) for file in made.files],
        "network": weights.network.to_json(),
        "written": list(weights),
        "call": _call(weights.network),
        "to do": _to_do(destination, weights.network, made),
    }


def _lines(destination: str, weights: Weights, made: Exported) -> list[str]:
    kind = "TensorFlow V2 checkpoint" if made.format == "tensorflow" else "safetensors"
    lines = [
        f"{weights.path} -> {destination} ({kind})",
        f"files      {', '.join(file.name for file in made.files)}",
        f"written    {len(weights)} variables, float32, under slim's names",
        f"network    {_call(weights.network)}",
        f"to do      {_to_do(destination, weights.network, made)}",
    ]
    if made.format == "tensorflow":
        left = "labels, preprocessing and the call itself: a checkpoint holds variables alone"
        lines.append(f"left out   {left}, and `resnet-ref convert` takes them for slim's own network")
        if not made.state:
            lines.append(f"as it was  {made.files[0].with_name('checkpoint')}: it is not of our making")
    return lines


def _call(network: Network) -> str:
    """The call of slim's function that makes these variables, as one writes it in Python."""
    data = network.to_json()
    function, scope = data.pop("function"), data.pop("arg_scope", {})
    channels, blocks = data.pop("channels", 3), data.pop("blocks", None)
    arguments = ["images"]
    if blocks is not None:
        made = (f"Block({block['scope']!r}, bottleneck, {block['args']})" for block in blocks)
        arguments.append(f"[{', '.join(made)}]")
    arguments += [f"{name}={value!r}" for name, value in data.items()]
    text = f"{function}({', '.join([*arguments, 'is_training=False'])})"
    shown = ", ".join(f"{name}={value!r}" for name, value in scope.items())
    text += f" under resnet_arg_scope({shown})"
    return text if channels == 3 else f"{text}; images of {channels} channels"


def _to_do(destination: str, network: Network, made: Exported) -> str:
    if made.format == "tensorflow":
        # Of all that an arg scope may say here, slim has no word for this alone.
        pool = "" if network.arg_scope.max_pool2d_padding != "FIXED" else _PADDED
        return (
            "build that call with slim, in a graph with no other variables; then "
            f"tf.compat.v1.train.Saver().restore(session, {str(Path(destination))!r}){pool}"
        )
    norm = network.arg_scope.batch_norm
    epsilon = "" if norm is None else f"; batch norm adds {norm.epsilon:g} to the variance"
    return f"read it with safetensors.numpy.load_file, or another framework's. {LAYOUT}{epsilon}"
