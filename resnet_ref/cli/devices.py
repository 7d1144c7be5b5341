"""resnet-ref devices: where a network can run on this machine."""

import click
import llvmlite.binding as llvm

from resnet_ref.cli.options import as_json, echo_json
from resnet_ref.errors import DeviceError
from resnet_ref.kernels import DEVICES, on


@click.command(short_help="List where a network can run.")
@as_json
def devices(as_json: bool) -> None:
    """List the devices, what each computes in, and which one `auto` takes.

    \b
    resnet-ref devices
    resnet-ref devices --json
    """
    found = [_describe(device) for device in DEVICES]
    if as_json:
        echo_json(found)
        return
    for entry in found:
        click.echo(f"{entry['device']:<11} {entry['what']}")


def _describe(device: str) -> dict[str, object]:
    try:
        tier = on(device)
    except DeviceError as error:
        return {"device": device, "available": False, "what": str(error)}
    if device == "auto":
        what = f"takes {tier.device}"
    elif device == "definition":
        what = f"NumPy, {' or '.join(tier.dtypes)}"
    else:
        what = f"Numba, {' or '.join(tier.dtypes)}, {tier.threads} threads on {llvm.get_host_cpu_name()}"
    return {"device": device, "available": True, "what": what, "dtypes": list(tier.dtypes), "threads": tier.threads}
