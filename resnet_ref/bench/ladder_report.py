"""What the ladder's rungs took, as plain data, and that as tables."""

from collections.abc import Mapping, Sequence
from itertools import pairwise
from typing import Any

from resnet_ref.bench.contenders import CPU
from resnet_ref.bench.ladder import ALLOWED, Climb, Row
from resnet_ref.bench.machine import gpu, hardware, versions
from resnet_ref.bench.peaks import gpu_runtime
from resnet_ref.tables import columns, counted

Table = tuple[Sequence[str], Sequence[Sequence[str]]]  # header, rows
NOTES = (
    "speed-up: on the rung before. error: against float64, of the largest output.",
    "Convolutions that are alike are timed once, alone, with warm caches, and counted as often as they occur.",
    "GFLOP/s: what the definition multiplies, over the time; Winograd's algorithm and tensor cores can exceed the peak "
    "of float32's multiply-adds.",
    f"Each was compared with the definition in float64 first: its error is within {ALLOWED:g} of the largest output.",
)


def to_json(found: Climb) -> dict[str, Any]:
    """Plain data; times in seconds. Of each rung on each kind of convolution the median and the quartiles."""
    speeds = {rung.name: found.flops / found.seconds(rung.name) / 1e9 for rung in found.rungs}
    return {
        "network": found.network.to_json(),
        "shape": list(found.shape),
        "device": found.device,
        "threads": found.threads,
        "rounds": found.rounds,
        "peak": {"gflops": found.peak.gflops, "copy_gb_s": found.peak.copy},
        "convolutions": found.count,
        "of": found.of,
        "flops": found.flops,
        "rungs": {
            name: {
                "seconds": found.seconds(name),
                "gflops": speed,
                "of_peak": speed / found.peak.gflops,
                "error": max(row.times[name].error for row in found.rows),
            }
            for name, speed in speeds.items()
        },
        "kinds": [_kind(found, row) for row in found.rows],
        "hardware": hardware(),
        "gpus": {} if found.device == CPU else {found.device: gpu(gpu_runtime(found.device))},
        "versions": versions(["resnet-ref", "numpy", "numba", "llvmlite"]),
    }


def _kind(found: Climb, row: Row) -> dict[str, Any]:
    return {
        "first": row.kind.first,
        "text": row.kind.text,
        "count": row.kind.count,
        "flops": row.flops,
        "times": {
            name: {
                "median": timed.median,
                "quartiles": timed.quartiles,
                "runs": len(timed.seconds),
                "of_peak": row.flops / timed.median / 1e9 / found.peak.gflops,
                "error": timed.error,
            }
            for name, timed in row.times.items()
        },
    }


def to_text(data: Mapping[str, Any]) -> str:
    """The rungs on the whole network, then on each kind of convolution."""
    batch, height, width, channels = data["shape"]
    images = f"{data['network']['function']}, images [{batch}, {height}, {width}, {channels}], {machine(data)}"
    overall, by_kind = tables(data)
    return "\n".join([images, peak(data), "", *columns(*overall, 1), "", *columns(*by_kind, 2), "", *NOTES])


def machine(data: Mapping[str, Any]) -> str:
    """What it ran on."""
    names = [one["name"] for one in data["gpus"].values()]
    return names[0] if names else f"{counted(data['threads'], 'thread')} of {data['hardware']['processor']}"


def peak(data: Mapping[str, Any]) -> str:
    """What shares are of."""
    return f"fused multiply-adds alone: {data['peak']['gflops']:.0f} GFLOP/s"


def convolutions(data: Mapping[str, Any]) -> str:
    """How many were measured."""
    count, of = data["convolutions"], data.get("of", data["convolutions"])
    return f"all {of} convolutions" if count == of else f"{count} of {of} convolutions"


def tables(data: Mapping[str, Any]) -> tuple[Table, Table]:
    """Each rung on all convolutions; each kind of convolution by each rung, as shares of the peak."""
    return _overall(data), _by_kind(data)


def _overall(data: Mapping[str, Any]) -> Table:
    rungs = data["rungs"]
    taken = [rung["seconds"] for rung in rungs.values()]
    gains = ["", *(f"{before / after:.2f}" for before, after in pairwise(taken))]
    header = (
        convolutions(data),
        "ms",
        "GFLOP/s",
        "of peak",
        "speed-up",
        "error",
    )
    rows = [
        (
            name,
            f"{1e3 * rung['seconds']:.3g}" if rung["seconds"] < 0.1 else f"{1e3 * rung['seconds']:.0f}",
            f"{rung['gflops']:.1f}",
            f"{rung['of_peak']:.1%}",
            gain,
            f"{rung['error']:.0e}",
        )
        for (name, rung), gain in zip(rungs.items(), gains, strict=True)
    ]
    return header, rows


def _by_kind(data: Mapping[str, Any]) -> Table:
    header = ("share of the peak", "how many", *data["rungs"])
    rows = [
        (kind["text"], str(kind["count"]), *(f"{times['of_peak']:.0%}" for times in kind["times"].values()))
        for kind in data["kinds"]
    ]
    return header, rows
