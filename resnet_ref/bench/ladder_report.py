"""What the ladder's rungs took, as tables and as plain data."""

from collections.abc import Iterator, Sequence
from itertools import pairwise
from typing import Any

from resnet_ref.bench.contenders import CPU
from resnet_ref.bench.ladder import ALLOWED, Climb, Row
from resnet_ref.bench.machine import gpu, hardware, versions
from resnet_ref.bench.peaks import gpu_runtime
from resnet_ref.tables import columns

Table = tuple[Sequence[str], Sequence[Sequence[str]]]  # header, rows


def to_text(found: Climb) -> str:
    """The rungs on the whole network, then on each kind of convolution."""
    on = f"{found.threads} threads of {hardware()['processor']}" if found.device == CPU else gpu_runtime(found.device)
    batch, height, width, channels = found.shape
    notes = [
        "Convolutions that are alike are timed once, alone, with warm caches, and counted as often as they occur.",
        "GFLOP/s: what the definition multiplies, over the time; Winograd's algorithm and tensor cores can exceed the "
        "peak of float32's multiply-adds.",
        f"Each was compared with the definition in float64 first: within {ALLOWED:g} of the largest output.",
    ]
    return "\n".join(
        [
            f"{found.network.function}, images [{batch}, {height}, {width}, {channels}], {on}",
            f"fused multiply-adds alone: {found.peak.gflops:.0f} GFLOP/s",
            "",
            *columns(*whole(found), 1),
            "",
            *columns(*by_kind(found), 2),
            "",
            *notes,
        ]
    )


def whole(found: Climb) -> Table:
    """(header, rows): each rung on all convolutions."""
    header = (f"all {found.count} convolutions", "ms", "GFLOP/s", "of peak", "times the rung before", "error")
    names = [rung.name for rung in found.rungs]
    faster = ["", *(f"{found.seconds(below) / found.seconds(name):.2f}" for below, name in pairwise(names))]
    rows: list[tuple[str, ...]] = []
    for name, gain in zip(names, faster, strict=True):
        seconds = found.seconds(name)
        speed = found.flops / seconds / 1e9
        error = max(row.times[name].error for row in found.rows)
        share = f"{speed / found.peak.gflops:.1%}"
        rows.append((name, f"{1e3 * seconds:.2f}", f"{speed:.1f}", share, gain, f"{error:.0e}"))
    return header, rows


def by_kind(found: Climb) -> Table:
    """(header, rows): each kind of convolution; cells are shares of the peak."""
    header = ("share of the peak", "how many", *(rung.name for rung in found.rungs))
    rows: list[tuple[str, ...]] = [
        (row.kind.text, str(row.kind.count), *(f"{share:.1%}" for share in _shares(found, row))) for row in found.rows
    ]
    return header, rows


def _shares(found: Climb, row: Row) -> Iterator[float]:
    for rung in found.rungs:
        yield row.flops / row.times[rung.name].median / 1e9 / found.peak.gflops


def to_json(found: Climb) -> dict[str, Any]:
    """Plain data: everything, each run's time too; times in seconds."""
    gpus = {} if found.device == CPU else {found.device: gpu(gpu_runtime(found.device))}
    return {
        "network": found.network.to_json(),
        "shape": list(found.shape),
        "device": found.device,
        "threads": found.threads,
        "rounds": found.rounds,
        "peak": {"gflops": found.peak.gflops, "copy_gb_s": found.peak.copy},
        "convolutions": found.count,
        "flops": found.flops,
        "rungs": {
            rung.name: {
                "seconds": found.seconds(rung.name),
                "gflops": found.flops / found.seconds(rung.name) / 1e9,
                "of_peak": found.flops / found.seconds(rung.name) / 1e9 / found.peak.gflops,
            }
            for rung in found.rungs
        },
        "kinds": [_kind(found, row) for row in found.rows],
        "hardware": hardware(),
        "gpus": gpus,
        "versions": versions(["resnet-ref", "numpy", "numba", "llvmlite"]),
    }


def _kind(found: Climb, row: Row) -> dict[str, Any]:
    shares = _shares(found, row)
    return {
        "first": row.kind.first,
        "text": row.kind.text,
        "count": row.kind.count,
        "flops": row.flops,
        "times": {
            name: {"median": timed.median, "of_peak": share, "error": timed.error, "seconds": timed.seconds}
            for (name, timed), share in zip(row.times.items(), shares, strict=True)
        },
    }
