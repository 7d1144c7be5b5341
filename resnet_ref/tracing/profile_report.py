"""A profile as a table, as plain data, and as a page with a roofline."""

import os
from dataclasses import asdict
from typing import Any

import numpy as np

from resnet_ref.pages.figures import INK, MUTED, ONE, THREE, TWO, figure, svg
from resnet_ref.pages.render import render, write
from resnet_ref.tables import columns
from resnet_ref.tracing.profile import Call, Profile

HEADER = ("kernel", "of", "output", "MFLOP", "MB", "ms", "GFLOP/s", "GB/s", "flop/byte", "of the roof")
_MARKS = {
    "conv2d": ("o", ONE),
    "batch_norm": ("s", TWO),
    "add_relu": ("^", THREE),
    "add_relu6": ("^", THREE),
    "max_pool2d": ("D", INK),
    "spatial_mean": ("+", INK),
    "softmax": ("x", INK),
}


def to_json(found: Profile) -> dict[str, Any]:
    """Plain data; seconds are medians."""
    data = asdict(found)
    for entry, call in zip(data["calls"], found.calls, strict=True):
        entry["share_of_roof"] = found.peak.roof(call) / call.seconds
    return data


def to_text(found: Profile) -> str:
    """A line per call, then per kernel."""
    lines = [f"{about(found)}; {peak_line(found)}", ""]
    lines += columns(HEADER, [cells(found, call) for call in found.calls], left=3)
    lines += ["", *columns(("kernel", "calls", "ms", "share"), by_kernel(found)), ""]
    return "\n".join(lines)


def about(found: Profile) -> str:
    """What ran where, and how long."""
    computing = sum(call.seconds for call in found.calls)
    return (
        f"{found.what} on {found.device}, {found.threads} threads, images {list(found.shape)}: "
        f"{1e3 * found.seconds:.2f} ms a run, {1e3 * computing:.2f} ms of it in {len(found.calls)} kernel calls "
        f"(medians of {found.runs} runs)"
    )


def peak_line(found: Profile) -> str:
    """What the roof is made of."""
    return (
        f"the roof: {found.peak.flops / 1e9:.0f} GFLOP/s, the best float32 matrix product here, and "
        f"{found.peak.bytes / 1e9:.1f} GB/s, the best copy"
    )


def cells(found: Profile, call: Call) -> tuple[str, ...]:
    """One call's row."""
    return (
        call.kernel,
        call.scope,
        "x".join(map(str, call.output)),
        f"{call.flops / 1e6:.2f}",
        f"{call.bytes / 1e6:.2f}",
        f"{1e3 * call.seconds:.3f}",
        f"{call.flops / call.seconds / 1e9:.1f}",
        f"{call.bytes / call.seconds / 1e9:.1f}",
        f"{call.intensity:.1f}",
        f"{100 * found.peak.roof(call) / call.seconds:.0f} %",
    )


def by_kernel(found: Profile) -> list[tuple[str, ...]]:
    """Calls, milliseconds and share of each kernel, the costliest first."""
    totals: dict[str, list[float]] = {}
    for call in found.calls:
        totals.setdefault(call.kernel, []).append(call.seconds)
    whole = sum(sum(seconds) for seconds in totals.values()) or 1.0
    ordered = sorted(totals.items(), key=lambda item: -sum(item[1]))
    return [(k, str(len(s)), f"{1e3 * sum(s):.2f}", f"{100 * sum(s) / whole:.0f} %") for k, s in ordered]


def write_profile_page(found: Profile, path: str | os.PathLike[str]) -> None:
    """Write the page. DeviceError without the extra `pages`."""
    rows = [cells(found, call) for call in found.calls]
    page = render(
        "profile.html.jinja",
        title=f"{found.what} on {found.device}",
        about=about(found),
        peak=peak_line(found),
        roofline=_roofline(found),
        kernels=by_kernel(found),
        header=HEADER,
        rows=rows,
    )
    write(path, page)


def _roofline(found: Profile) -> Any:
    calls = [call for call in found.calls if call.flops]
    with figure(10, 5) as (made, axes):
        intensities = np.array([call.intensity for call in calls])
        reach = np.geomspace(intensities.min() / 2, intensities.max() * 2, 200)
        roof = np.minimum(found.peak.flops, reach * found.peak.bytes) / 1e9
        axes.plot(reach, roof, color=INK, linewidth=1.5, label="the roof")
        for kernel in dict.fromkeys(call.kernel for call in calls):
            marker, colour = _MARKS.get(kernel, (".", MUTED))
            of = [call for call in calls if call.kernel == kernel]
            reached = [call.flops / call.seconds / 1e9 for call in of]
            axes.plot([call.intensity for call in of], reached, marker, color=colour, label=kernel, markersize=5)
        axes.set_xscale("log")
        axes.set_yscale("log")
        axes.set_xlabel("flops per byte")
        axes.set_ylabel("GFLOP/s")
        axes.legend(loc="lower right")
        description = f"{len(calls)} kernel calls under a roof. {peak_line(found)}. The table has every number."
        return svg(made, "roofline", "Roofline: speed of each kernel call by its arithmetic intensity", description)
