"""resnet-ref devices: where a network can run on this machine."""

from collections.abc import Sequence
from typing import Any

import click
import llvmlite.binding as llvm

from resnet_ref.bench import machine
from resnet_ref.cli.options import as_json, echo, echo_json
from resnet_ref.errors import DeviceError
from resnet_ref.kernels import on
from resnet_ref.kernels.conv2d.choice import BF16
from resnet_ref.kernels.conv2d.gpu import has_precision
from resnet_ref.kernels.cuda.cupy_runtime import device_count
from resnet_ref.kernels.vector.isa import has_amx
from resnet_ref.plan.offer import PRECISIONS_OF


@click.command(short_help="List where a network can run.")
@as_json
def devices(as_json: bool) -> None:
    """List the devices, each gpu among them, what each computes in, and which one `auto` takes.

    \b
    resnet-ref devices
    resnet-ref devices --json
    """
    gpus = _gpus()
    found = [_host("definition"), _host("cpu"), *gpus, _auto(gpus)]
    if as_json:
        echo_json(found)
        return
    for entry in found:
        echo(f"{entry['device']:<11} {entry['what']}")


def _host(device: str) -> dict[str, Any]:
    tier = on(device, load=False)
    precisions = [p for p in PRECISIONS_OF[device] if p not in BF16 or has_amx()]
    what = f"{'NumPy' if device == 'definition' else 'Numba'}, {_or(precisions)}"
    if device == "cpu":
        what += f", {tier.threads} threads on {llvm.get_host_cpu_name()}"
    known = {"dtypes": list(tier.dtypes), "precisions": precisions, "threads": tier.threads}
    return {"device": device, "available": True, "what": what, **known}


def _or(words: Sequence[str]) -> str:
    *most, last = words
    return f"{', '.join(most)} or {last}" if most else last


def _gpus() -> list[dict[str, Any]]:
    """Each gpu; where there is none, one entry that says why."""
    try:
        return [_gpu(index) for index in range(device_count())]
    except DeviceError as error:
        return [_missing("gpu", error)]


def _gpu(index: int) -> dict[str, Any]:
    device = f"gpu:{index}"
    try:
        tier = on(device, load=False)
        assert tier.runtime is not None
        about = machine.gpu(tier.runtime)
    except DeviceError as error:
        return _missing(device, error)
    precisions = [p for p in PRECISIONS_OF["gpu"] if has_precision(tier.runtime, p)]
    what = (
        f"{about['name']}, {about['architecture']}, {about['memory'] / 2**30:.1f} GiB, {_or(precisions)}, "
        f"driver {about['driver'] or 'unknown'}, CuPy {about['cupy']}"
    )
    return {
        "device": device,
        "available": True,
        "what": what,
        "dtypes": list(tier.dtypes),
        "precisions": precisions,
        **about,
    }


def _missing(device: str, why: DeviceError) -> dict[str, Any]:
    return {"device": device, "available": False, "what": str(why)}


def _auto(gpus: list[dict[str, Any]]) -> dict[str, Any]:
    """What kernels.fastest takes: the first gpu, or the cpu."""
    first = gpus[0]
    what = f"takes {first['device']}" if first["available"] else f"takes cpu: {first['what']}"
    if sum(gpu["available"] for gpu in gpus) > 1:
        what += "; classify and features take every gpu"
    return {"device": "auto", "available": True, "what": what}
