"""A verification as one HTML page with plots."""

import os
from typing import Any

import numpy as np

from resnet_ref.pages.figures import INK, MUTED, ONE, THREE, TWO, figure, svg
from resnet_ref.pages.render import render, write
from resnet_ref.verification.comparison import Closeup, Row
from resnet_ref.verification.measures import EXPONENTS
from resnet_ref.verification.report import (
    HEADER,
    cells,
    inputs_line,
    labels_line,
    time_line,
    tolerance,
    verdict,
)
from resnet_ref.verification.verify import Verification

LEGEND = (
    ("max error, mean", "of |ours - slim|"),
    ("of max", "the largest difference, of the end point's largest value"),
    ("ulps", "float32 numbers between ours and slim's: the median and the most"),
    ("cosine", "of the angle between ours and slim's"),
    ("ours-f64, slim-f64", "the largest distance to the float64 definition, of the largest value"),
    ("used", "the largest share of what is allowed; above 1 it departs"),
)
_TINY = 1e-12  # what a logarithmic axis shows for no error at all


def write_page(found: Verification, path: str | os.PathLike[str]) -> None:
    """Write the page. DeviceError without the extra `pages`, WeightsError where the file cannot be written."""
    write(path, page(found))


def page(found: Verification) -> str:
    """The page as text."""
    rows = found.comparison.rows
    measured = [row for row in rows if row.measures]
    versions = found.facts.versions
    facts = [
        ("weights", f"{found.weights}: {found.network.function}, scope {found.network.scope}"),
        ("ran on", f"{found.device}, {found.precision}"),
        ("recording", f"{found.recording}: " + ", ".join(f"{name} {version}" for name, version in versions.items())),
        ("inputs", inputs_line(found)),
        ("labels", labels_line(found)),
        *(("note", note) for note in found.notes),
        ("allowed", tolerance(found)),
        ("seconds", time_line(found)),
    ]
    closeup = found.comparison.closeup
    return render(
        "verification.html.jinja",
        agrees=found.agrees,
        network=found.network.function,
        verdict=verdict(found),
        named=found.named,
        alike=[(cause.name, cause.alike) for cause in found.causes if cause.alike],
        facts=facts,
        depth=_depth(measured) if measured else "",
        spread=_spread(measured) if measured else "",
        closeup=None if closeup is None else _closeup(closeup),
        header=HEADER,
        rows=[{"departs": row.departs, "cells": cells(row)} for row in rows],
        legend=LEGEND,
    )


def _depth(rows: list[Row]) -> Any:
    with figure(11, 4.2) as (made, axes):
        measures = [row.measures for row in rows if row.measures]
        for label, errors, colour, dashes, marker in (
            ("ours to slim", [m.e_near for m in measures], THREE, ":", "o"),
            ("slim to float64", [m.e_slim for m in measures], TWO, "--", "s"),
            ("ours to float64", [m.e_ours for m in measures], ONE, "-", "^"),
        ):
            shown = np.clip(np.nan_to_num(errors, posinf=10.0), _TINY, 10.0)
            axes.plot(shown, dashes, color=colour, label=label, linewidth=1.4, marker=marker, markersize=3)
        departing = [(i, max(row.measures.e_near, _TINY)) for i, row in enumerate(rows) if row.departs and row.measures]
        if departing:
            axes.plot(*zip(*departing, strict=True), "x", color=INK, label="departs", markersize=7)
        axes.set_yscale("log")
        axes.set_ylabel("largest error, of the largest value")
        _name_blocks(axes, rows)
        axes.legend(loc="best", ncols=4, fontsize=9)
        worst = max(rows, key=lambda row: row.share)
        description = (
            f"Three lines over {len(rows)} end points. {len(departing)} depart. The nearest to its bound, or furthest "
            f"beyond it, is {worst.name}. The table below has every number."
        )
        return svg(made, "depth", "Error at each end point, in the network's order", description)


def _spread(rows: list[Row]) -> Any:
    with figure(11, 3.4) as (made, axes):
        counts = np.array([row.measures.histogram for row in rows if row.measures], float).T
        shares = counts / np.maximum(counts.sum(axis=0), 1)
        shown = np.ma.masked_equal(shares, 0)
        extent = (-0.5, len(rows) - 0.5, EXPONENTS[0], EXPONENTS[-1])
        image = axes.imshow(
            shown, origin="lower", aspect="auto", extent=extent, cmap="viridis", interpolation="nearest"
        )
        bar = made.colorbar(image, ax=axes, pad=0.01)
        bar.set_label("share of values", color=INK)
        axes.grid(False)
        axes.set_ylabel("log10 of the difference")
        _name_blocks(axes, rows)
        return svg(
            made, "spread", "Histogram of differences at each end point", "A column per end point; lower is closer."
        )


def _name_blocks(axes: Any, rows: list[Row]) -> None:
    """Ticks where a block begins, and at what stands outside the blocks."""
    ticks: dict[str, int] = {}
    for number, row in enumerate(rows):
        parts = row.name.split("/")
        block = next((part for part in parts if part.startswith("block")), parts[-1])
        ticks.setdefault(block, number)
    for place in ticks.values():
        axes.axvline(place - 0.5, color=MUTED, linewidth=0.4)
    named: dict[str, int] = {}
    for name, place in sorted(ticks.items(), key=lambda tick: (not tick[0].startswith("block"), tick[1])):
        if all(abs(place - other) >= len(rows) / 16 for other in named.values()):  # where there is room for a name
            named[name] = place
    axes.set_xlim(-1, len(rows))
    axes.set_xticks(list(named.values()), list(named))
    axes.tick_params(axis="x", length=0)


def _closeup(closeup: Closeup) -> dict[str, Any]:
    n, y, x, c = closeup.at
    maps = {"ours": closeup.ours, "slim": closeup.slim, "float64": closeup.truth}
    held = {name: patch for name, patch in maps.items() if patch is not None}
    if closeup.slim is not None:
        held["ours - slim"] = closeup.ours - closeup.slim
    says = f"Image {n}, channel {c}, around row {y}, column {x}, where ours and slim differ most."
    if closeup.slim is None:
        says += " The recording is a sample, so slim's neighbours are not known."
    shown = [_map(name, patch, closeup) for name, patch in held.items()]
    return {"name": closeup.name, "says": says, "maps": shown, "histogram": _histogram(closeup)}


def _map(name: str, patch: Any, closeup: Closeup) -> dict[str, Any]:
    largest = float(np.nanmax(np.abs(patch))) or 1.0
    rows = []
    for i, line in enumerate(patch):
        found = []
        for j, value in enumerate(line):
            here = (closeup.top + i, closeup.left + j) == closeup.at[1:3]
            share = abs(float(value)) / largest if np.isfinite(value) else 0.0
            found.append({"text": f"{value:.4g}", "share": f"{share:.2f}", "here": here})
        rows.append((closeup.top + i, found))
    return {"caption": name, "cols": [closeup.left + j for j in range(patch.shape[1])], "rows": rows}


def _histogram(closeup: Closeup) -> Any:
    with figure(8, 2.8) as (made, axes):
        for (name, counts), colour, style in zip(closeup.counts.items(), (ONE, TWO), ("-", "--"), strict=True):
            axes.stairs(counts, closeup.edges, color=colour, label=name, linestyle=style, linewidth=1.5)
        axes.set_yscale("symlog", linthresh=1)
        axes.set_ylim(bottom=0)
        axes.set_xlabel("value")
        axes.set_ylabel("count")
        axes.legend(fontsize=9)
        low, high = closeup.edges[0], closeup.edges[-1]
        return svg(made, "values", f"Values of {closeup.name}", f"Two histograms from {low:.4g} to {high:.4g}.")
