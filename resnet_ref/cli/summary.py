"""resnet-ref summary: a network unit by unit, without running it."""

from collections.abc import Mapping
from functools import partial
from typing import Any

import click
import numpy as np

from resnet_ref import kernels
from resnet_ref.cli.options import Device, as_json, echo, echo_json, echo_table
from resnet_ref.cost import Cost, Row, cost
from resnet_ref.kernels.arrays import Array
from resnet_ref.network import Network
from resnet_ref.plan.offer import PRECISIONS, check_options, planner_for
from resnet_ref.plan.report import Described, described
from resnet_ref.resnet_v1 import DEFAULT_IMAGE_SIZE, UNITS
from resnet_ref.weights_file import load_weights_apart


@click.command(short_help="Show a network unit by unit.")
@click.option("--weights", metavar="FILE", help="The network of a weights file.")
@click.option("--variant", type=click.Choice(tuple(UNITS)), help="One of slim's; needs no weights.")
@click.option("--num-classes", type=click.IntRange(0), help="With --variant; 1000 if not given.")
@click.option("--depth-multiplier", type=click.FloatRange(0), help="With --variant; 1 if not given.")
@click.option("--size", type=click.IntRange(1), nargs=2, metavar="H W", help="Of the images; else the network's own.")
@click.option("--batch", type=click.IntRange(1), default=1, show_default=True, help="Images at a time.")
@click.option("--output-stride", type=int, help="Ratio of input to output size: 4, 8, 16 or 32.")
@click.option("--plan", "planned", is_flag=True, help="How a device computes it instead: algorithms, weights, memory.")
@click.option("--device", type=Device(), default="cpu", show_default=True, help="With --plan.")
@click.option("--precision", type=click.Choice(PRECISIONS), default="float32", show_default=True, help="With --plan.")
@click.option("--algorithm", default="auto", show_default=True, help="With --plan, as load_model takes it.")
@click.option("--isa", help="With --plan, as load_model takes it.")
@click.option("--threads", type=click.IntRange(1, 1024), help="With --plan; all there are if not given.")
@as_json
def summary(
    weights: str | None,
    variant: str | None,
    num_classes: int | None,
    depth_multiplier: float | None,
    size: tuple[int, int] | None,
    batch: int,
    output_stride: int | None,
    planned: bool,
    device: str,
    precision: str,
    algorithm: str,
    isa: str | None,
    threads: int | None,
    as_json: bool,
) -> None:
    """Show each unit's output shape, stride, atrous rate, parameters, arithmetic and memory.

    MFLOPs count a multiply-add as two; bytes are those of the unit's activations in float32.

    \b
    resnet-ref summary --variant resnet_v1_50
    resnet-ref summary --variant resnet_v1_101 --size 513 513 --output-stride 8
    resnet-ref summary --variant resnet_v1_50 --plan --batch 8
    """
    options = precision, algorithm, isa
    if not planned and (device, *options, threads) != ("cpu", "float32", "auto", None, None):
        raise click.UsageError(
            "--device, --precision, --algorithm, --isa and --threads are about a --plan; ask for one"
        )
    asked = {"num_classes": num_classes, "depth_multiplier": depth_multiplier}
    network, side = _asked_for(weights, variant, {name: value for name, value in asked.items() if value is not None})
    height, width = size or side
    # Larger images leave a map of logits, which is what a summary of them should show.
    changes: dict[str, Any] = {"spatial_squeeze": False}
    if output_stride is not None:
        changes["output_stride"] = output_stride
    found: Cost | Described
    if planned:
        tier = kernels.on(device, threads, load=False)
        check_options(tier, *options)
        planner = planner_for(tier, partial(network.describe, **changes), _zeros(network), *options)
        if planner is None:
            raise click.UsageError("the definition makes no plans; give --device cpu or gpu")
        found = described(planner, (batch, height, width, network.channels))
    else:
        found = cost(network, batch, height, width, **changes)
    if as_json:
        ran = {"device": tier.device, "precision": precision} if planned else {}
        echo_json({"network": network.to_json(), "batch": batch, "size": [height, width], **ran, **found.to_json()})
        return
    echo(f"{network.function}, images [{batch}, {height}, {width}, {network.channels}]")
    if isinstance(found, Described):
        _echo_plan(found, precision)
    else:
        _echo(found)


def _asked_for(
    weights: str | None, variant: str | None, arguments: Mapping[str, Any]
) -> tuple[Network, tuple[int, int]]:
    """The network, and the size of images it is made for."""
    if weights is not None and variant is not None:
        raise click.UsageError("give --weights or --variant, not both")
    if arguments and variant is None:
        raise click.UsageError("--num-classes and --depth-multiplier describe a --variant; name one")
    side = (DEFAULT_IMAGE_SIZE, DEFAULT_IMAGE_SIZE)
    if variant is not None:
        return Network.from_json({"function": variant, "num_classes": 1000, **arguments}), side
    loaded = load_weights_apart(weights)
    if loaded.preprocessing is not None:
        side = (loaded.preprocessing.height, loaded.preprocessing.width)
    return loaded.network, side


def _zeros(network: Network) -> Mapping[str, Array]:
    """Variables that cost no memory: a plan is the same whatever they are."""
    try:
        return {name: np.broadcast_to(np.float32(0), shape) for name, shape in network.variables().items()}
    except ValueError:  # NumPy's for more bytes than there are addresses
        raise MemoryError("a variable of it is larger than any memory") from None


def _echo_plan(found: Described, precision: str) -> None:
    header = ("layer", "algorithm", "passes", "tasks", "MFLOPs", "weights")
    cells = [
        (row.layer, row.algorithm, str(row.passes), str(row.tasks), _mega(row.flops), f"{row.weights:,}")
        for row in found.rows
    ]
    echo_table(header, cells, left=2)
    weights = sum(row.weights for row in found.rows)
    echo(
        f"{precision} on {found.machine}; images at a time: {found.images}; "
        f"memory {found.bytes / 2**20:.1f} MiB, weights as the kernels read them {weights / 2**20:.1f} MiB"
    )


def _echo(found: Cost) -> None:
    header = ("unit", "output", "stride", "total", "rate", "parameters", "MFLOPs", "bytes")
    total = ("sum", "", "", "", "", f"{found.total_parameters:,}", _mega(found.total_flops), f"{found.total_bytes:,}")
    echo_table(header, [*(_cells(row) for row in found.rows), total], left=2)
    echo(
        f"run layer by layer, activations need at most {found.peak_bytes / 2**20:.1f} MiB at once, "
        f"the variables {4 * found.total_parameters / 2**20:.1f} MiB"
    )


def _cells(row: Row) -> tuple[str, ...]:
    shape = "x".join(map(str, row.output[1:]))
    numbers = (row.stride, row.total_stride, row.rate)
    return (row.name, shape, *map(str, numbers), f"{row.parameters:,}", _mega(row.flops), f"{row.bytes:,}")


def _mega(flops: int) -> str:
    return f"{flops / 1e6:,.1f}"
