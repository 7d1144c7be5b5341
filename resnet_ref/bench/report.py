"""What was measured, as tables and as plain data."""

import statistics
from collections.abc import Mapping
from typing import Any

from resnet_ref.bench.agreement import ALLOWED
from resnet_ref.bench.comparison import Batch, Comparison, Times
from resnet_ref.bench.contenders import PEERS
from resnet_ref.bench.machine import hardware, versions
from resnet_ref.bench.start import Start
from resnet_ref.tables import columns


def to_text(found: Comparison, absent: Mapping[str, str]) -> str:
    """Tables: for each batch, then of fresh processes; `absent` peers and why."""
    about = hardware()
    height, width = found.size
    lines = [
        f"{found.network.function}, images [N, {height}, {width}, {found.network.channels}], "
        f"{found.agenda.threads} threads of {about['processor']}",
        f"fused multiply-adds alone: {found.peak:.0f} GFLOP/s",
    ]
    for batch in found.batches:
        lines += ["", *_batch(batch, found.peak)]
    if found.starts:
        lines += ["", *_starts(found.starts)]
    lines += ["", *(f"{name} is not installed: {why}" for name, why in absent.items()), *_notes(found)]
    return "\n".join(lines)


def _batch(batch: Batch, peak: float) -> list[str]:
    header = (f"batch {batch.size}", "median ms", "quartiles", "of ours", "GFLOP/s", "of peak", "error")
    rows = []
    for name, times in batch.times.items():
        low, high = times.quartiles
        speed = batch.flops / times.median / 1e9
        rows.append(
            (
                name,
                f"{1000 * times.median:.2f}",
                f"{1000 * low:.2f} .. {1000 * high:.2f}",
                f"{batch.ratio(name):.2f}",
                f"{speed:.1f}",
                f"{speed / peak:.0%}",
                f"{times.error:.1e}",
            )
        )
    return columns(header, rows)


def _starts(starts: Mapping[str, Start]) -> list[str]:
    header = ("a new process, batch 1", "first answer, s", "nothing compiled, s", "peak memory, MiB")
    rows = []
    for name, one in starts.items():
        cold = f"{statistics.median(one.cold):.2f}" if one.cold else "-"
        memory = _memory(one)
        rows.append(
            (name, f"{statistics.median(one.warm):.2f}", cold, "-" if memory is None else f"{memory / 2**20:.0f}")
        )
    return columns(header, rows)


def _notes(found: Comparison) -> list[str]:
    runs = ", ".join(f"{len(next(iter(b.times.values())).seconds)} runs at batch {b.size}" for b in found.batches)
    free = [contender.name for contender in found.agenda.contenders if not contender.exact]
    but = f"; {', '.join(free)} need not" if free else ""
    return [
        f"Medians of {runs}, in {found.agenda.rounds} rounds of turns. of ours: to the first row's median.",
        "GFLOP/s: what the definition multiplies, over the time; Winograd's algorithm multiplies less, so that it can "
        "exceed the peak.",
        f"error: largest at the logits, of the largest there, against float64. All agree within {ALLOWED:g}{but}.",
    ]


def _memory(one: Start) -> float | None:
    known = [count for count in one.bytes if count is not None]
    return statistics.median(known) if known else None


def to_json(found: Comparison, absent: Mapping[str, str], command: str) -> dict[str, Any]:
    """Plain data: everything, each run's time too; times in seconds, memory in bytes. command: the line."""
    packages = ["resnet-ref", "numpy", "numba", "llvmlite"]
    for contender in found.agenda.contenders:
        packages += [] if contender.is_ours else [p for p in PEERS[contender.engine].packages if p not in packages]
    return {
        "command": command,
        "network": found.network.to_json(),
        "size": list(found.size),
        "threads": found.agenda.threads,
        "rounds": found.agenda.rounds,
        "contenders": [
            {"name": c.name, "engine": c.engine, "options": dict(c.options), "exact": c.exact}
            for c in found.agenda.contenders
        ],
        "not_installed": dict(absent),
        "fma_peak_gflops": found.peak,
        "batches": [_batch_json(batch, found.peak) for batch in found.batches],
        "starts": {
            name: {"warm": one.warm, "cold": one.cold, "bytes": one.bytes, "peak_bytes": _memory(one)}
            for name, one in found.starts.items()
        },
        "hardware": hardware(),
        "versions": versions(packages),
    }


def _batch_json(batch: Batch, peak: float) -> dict[str, Any]:
    return {
        "batch": batch.size,
        "flops": batch.flops,
        "times": {name: _times_json(batch, name, times, peak) for name, times in batch.times.items()},
    }


def _times_json(batch: Batch, name: str, times: Times, peak: float) -> dict[str, Any]:
    speed = batch.flops / times.median / 1e9
    return {
        "median": times.median,
        "quartiles": list(times.quartiles),
        "of_ours": batch.ratio(name),
        "gflops": speed,
        "of_peak": speed / peak,
        "error": times.error,
        "seconds": times.seconds,
    }
