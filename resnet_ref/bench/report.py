"""What was measured, as tables and as plain data."""

import statistics
from collections.abc import Mapping
from typing import Any

from resnet_ref.bench.agreement import ALLOWED, allowed
from resnet_ref.bench.comparison import Batch, Comparison, Times
from resnet_ref.bench.contenders import CPU, PEERS
from resnet_ref.bench.machine import gpu, hardware, versions
from resnet_ref.bench.peaks import Peak, gpu_runtime
from resnet_ref.bench.start import Start
from resnet_ref.bench.torch_cuda import torch_cuda
from resnet_ref.tables import columns, counted


def to_text(found: Comparison, absent: Mapping[str, str]) -> str:
    """Tables: for each batch, then of fresh processes; `absent` peers and why."""
    about = hardware()
    height, width = found.size
    lines = [
        f"{found.network.function}, images [N, {height}, {width}, {found.network.channels}], "
        f"{counted(found.agenda.threads, 'thread')} of {about['processor']}",
        *(_peak(device, one) for device, one in found.peaks.items()),
    ]
    for batch in found.batches:
        lines += ["", *_batch(found, batch)]
    if found.starts:
        lines += ["", *_starts(found.starts)]
    lines += ["", *(f"{name} is not installed: {why}" for name, why in absent.items()), *_notes(found)]
    return "\n".join(lines)


def _peak(device: str, peak: Peak) -> str:
    what = "" if device == CPU else f"{gpu_runtime(device)}: "
    copied = "" if peak.copy is None else f"; copying: {peak.copy:.0f} GB/s"
    return f"{what}fused multiply-adds alone: {peak.gflops:.0f} GFLOP/s{copied}"


def _batch(found: Comparison, batch: Batch) -> list[str]:
    copies = any(peak.copy is not None for peak in found.peaks.values())
    header = (
        *(f"batch {batch.size}", "median ms", "quartiles", "images/s", "of ours", "GFLOP/s", "of peak"),
        *(["of bandwidth"] if copies else []),
        "error",
    )
    rows = []
    for name, times in batch.times.items():
        low, high = times.quartiles
        peak, speed = found.peak(name), batch.flops / times.median / 1e9
        bandwidth = _bandwidth(batch, times, peak)
        rows.append(
            (
                name,
                f"{1000 * times.median:.2f}",
                f"{1000 * low:.2f} .. {1000 * high:.2f}",
                f"{batch.size / times.median:.0f}",
                f"{batch.ratio(name):.2f}",
                f"{speed:.1f}",
                f"{speed / peak.gflops:.0%}",
                *(["-" if bandwidth is None else f"{bandwidth:.0%}"] if copies else []),
                f"{times.error:.1e}",
            )
        )
    return columns(header, rows)


def _bandwidth(batch: Batch, times: Times, peak: Peak) -> float | None:
    """How much of the device's best copy the run's least traffic comes to."""
    return None if peak.copy is None else batch.bytes / times.median / 1e9 / peak.copy


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
    free = [contender for contender in found.agenda.contenders if not contender.exact]
    but = "".join(f"; {contender.name} within {allowed(contender.precision):.2g}" for contender in free)
    notes = [
        f"Medians of {runs}, in {found.agenda.rounds} rounds of turns. of ours: to the first row's median.",
        "GFLOP/s: what the definition multiplies, over the time; Winograd's algorithm multiplies less, so that it can "
        "exceed the peak.",
        f"error: largest at the logits, of the largest there, against float64. All agree within {ALLOWED:g}{but}.",
    ]
    if any(device != CPU for device in found.peaks):
        notes += [
            "On a gpu: from images on the device to the result there, synchronised; `from host memory` with copies "
            "from and to the host; memory is the host's. of peak: of float32's, which tensor cores exceed.",
            "of bandwidth: what layer by layer is read and written at least, over the time, of the best copy.",
        ]
    return notes


def _memory(one: Start) -> float | None:
    known = [count for count in one.bytes if count is not None]
    return statistics.median(known) if known else None


def to_json(found: Comparison, absent: Mapping[str, str]) -> dict[str, Any]:
    """Plain data: everything, each run's time too; times in seconds, memory in bytes."""
    packages = ["resnet-ref", "numpy", "numba", "llvmlite"]
    for contender in found.agenda.contenders:
        packages += [] if contender.is_ours else [p for p in PEERS[contender.engine].packages if p not in packages]
    return {
        "network": found.network.to_json(),
        "size": list(found.size),
        "threads": found.agenda.threads,
        "rounds": found.agenda.rounds,
        "contenders": [
            {
                "name": c.name,
                "engine": c.engine,
                "options": dict(c.options),
                "precision": c.precision,
                "exact": c.exact,
                "from_host": c.from_host,
            }
            for c in found.agenda.contenders
        ],
        "not_installed": dict(absent),
        "peaks": {device: {"gflops": peak.gflops, "copy_gb_s": peak.copy} for device, peak in found.peaks.items()},
        "batches": [_batch_json(found, batch) for batch in found.batches],
        "starts": {
            name: {"warm": one.warm, "cold": one.cold, "bytes": one.bytes, "peak_bytes": _memory(one)}
            for name, one in found.starts.items()
        },
        "hardware": hardware(),
        "gpus": _gpus(found),
        "versions": versions(packages),
    }


def _gpus(found: Comparison) -> dict[str, Any]:
    """Facts of each gpu that ran, and of PyTorch's own CUDA where it was on one."""
    facts = {device: gpu(gpu_runtime(device)) for device in found.peaks if device != CPU}
    if any(not contender.is_ours and contender.device != CPU for contender in found.agenda.contenders):
        return {**facts, "pytorch": torch_cuda()}
    return facts


def _batch_json(found: Comparison, batch: Batch) -> dict[str, Any]:
    return {
        "batch": batch.size,
        "flops": batch.flops,
        "bytes": batch.bytes,
        "times": {name: _times_json(batch, name, times, found.peak(name)) for name, times in batch.times.items()},
    }


def _times_json(batch: Batch, name: str, times: Times, peak: Peak) -> dict[str, Any]:
    speed = batch.flops / times.median / 1e9
    return {
        "median": times.median,
        "quartiles": list(times.quartiles),
        "images_s": batch.size / times.median,
        "of_ours": batch.ratio(name),
        "gflops": speed,
        "of_peak": speed / peak.gflops,
        "of_bandwidth": _bandwidth(batch, times, peak),
        "error": times.error,
        "seconds": times.seconds,
    }
