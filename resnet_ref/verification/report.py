"""A verification as text for a terminal and as plain data for a machine."""

import math
from collections.abc import Iterator
from dataclasses import asdict
from typing import Any

import numpy as np

from resnet_ref.accuracy import COARSER, NEAR, OURS, SLIM
from resnet_ref.tables import columns, counted
from resnet_ref.verification.comparison import Row
from resnet_ref.verification.verify import Verification

HEADER = ("end point", "shape", "max error", "mean", "of max", "ulps", "cosine", "ours-f64", "slim-f64", "used")


def tolerance(found: Verification) -> str:
    """What `accuracy.Rule` allows, in words."""
    coarser = COARSER.get(found.precision, 1)
    ours = (OURS if found.facts.sample is None else SLIM) * coarser
    near = f"{NEAR:g} of the largest value" + (f", or what ours may be off in {found.precision}" if coarser > 1 else "")
    return (
        f"ours to float64 at most {ours} x slim's so far, slim's to float64 at most {SLIM} x ours so far "
        f"(each + as many eps), ours to slim at most {near}"
    )


def to_json(found: Verification) -> dict[str, Any]:
    """Plain data; a number that is not finite is null."""
    comparison = found.comparison
    return _plain(
        {
            "agrees": found.agrees,
            "first_departure": found.first,
            "diagnosis": [{"name": name, "says": says} for name, says in found.named],
            "causes": [asdict(cause) for cause in found.causes],
            "notes": found.notes,
            "tolerance": tolerance(found),
            "weights": str(found.weights),
            "recording": str(found.recording),
            "network": found.network.to_json(),
            "slim": {"call": found.facts.network, "is_training": found.facts.is_training, **found.facts.versions},
            "device": found.device,
            "precision": found.precision,
            "inputs": {**asdict(found.inputs), "departs": found.inputs.departs},
            "labels": asdict(found.labels),
            "end_points": [
                {"name": r.name, "departs": r.departs, "problem": r.problem, "shares": r.shares, **_measures(r)}
                for r in comparison.rows
            ],
            "unrecorded": comparison.unrecorded,
            "seconds": dict(found.seconds),
        }
    )


def to_text(found: Verification, every: bool = False) -> str:
    """What a person reads: the verdict first, then the table, of `every` end point or of the telling ones."""
    return "\n".join(_lines(found, every))


def verdict(found: Verification) -> str:
    """One line: do they agree, or where do they depart."""
    rows = found.comparison.rows
    if found.agrees:
        worst = found.comparison.worst
        return (
            f"agrees with slim: {len(rows)} end points, the nearest to its bound {worst.name}, using {worst.share:.2f}"
        )
    departing = sum(row.departs for row in rows)
    return f"departs from slim, first at {found.first}; {departing} of {len(rows)} end points depart"


def table(found: Verification, every: bool) -> list[tuple[str, ...]]:
    """Rows of HEADER's columns: every end point, or those outside of units, the first that departs, and the worst."""
    first = found.comparison.first
    worst = found.comparison.worst.name
    return [
        cells(row)
        for number, row in enumerate(found.comparison.rows)
        if every or "/unit_" not in row.name or number == first or row.name == worst
    ]


def cells(row: Row) -> tuple[str, ...]:
    """One row of the table."""
    m = row.measures
    used = "departs" if row.departs else f"{row.share:.2f}"
    if m is None:
        return (row.name, row.problem or "", *[""] * (len(HEADER) - 3), used)
    errors = (
        f"{m.max_error:.1e}",
        f"{m.mean_error:.1e}",
        f"{m.e_near:.1e}",
        f"{m.ulps_median:.0f} / {m.ulps_max:.0f}",
        f"{m.cosine:.9f}",
    )
    return (row.name, "x".join(map(str, m.shape)), *errors, f"{m.e_ours:.1e}", f"{m.e_slim:.1e}", used)


def inputs_line(found: Verification) -> str:
    """How the images compare."""
    inputs = found.inputs
    if not inputs.checked:
        return f"not compared: {inputs.says}"
    if inputs.departs:
        return f"depart: {inputs.says}; largest difference {inputs.max_error:.4g}"
    files = counted(len(found.facts.images), "file")
    return f"{files} preprocessed, largest difference to slim's arrays {inputs.max_error:.2g}"


def labels_line(found: Verification) -> str:
    """How the labels compare."""
    return f"{'depart: ' if found.labels.departs else ''}{found.labels.says}"


def time_line(found: Verification) -> str:
    """How long each part took."""
    return ", ".join(f"{what} {seconds:.2f} s" for what, seconds in found.seconds.items())


def _lines(found: Verification, every: bool) -> Iterator[str]:
    versions = found.facts.versions
    yield verdict(found)
    for number, (name, says) in enumerate(found.named, 1):
        yield f"{number}. {name}: {says}"
    for cause in found.causes:
        if cause.alike:
            yield f"   (indistinguishable here: {', '.join(cause.alike)})"
    if not found.agrees and not found.named:
        yield "no cause that was tried brings slim's numbers back; the first end point that departs is where to look"
    if (first := found.comparison.first) is not None and (m := found.comparison.rows[first].measures):
        yield f"   at {m.name} {list(m.at)}: ours {m.ours:.9g}, slim {m.slim:.9g}, float64 {m.truth:.17g}"
    yield ""
    yield f"weights    {found.weights}, {found.network.function} on {found.device}, {found.precision}"
    sample = "whole" if found.facts.sample is None else f"{found.facts.sample} values of each end point at most"
    yield f"recording  {found.recording}, TensorFlow {versions.get('tensorflow', '?')}, {sample}"
    yield f"inputs     {inputs_line(found)}"
    yield f"labels     {labels_line(found)}"
    yield from (f"note       {note}" for note in found.notes)
    yield f"allowed    {tolerance(found)}"
    yield f"seconds    {time_line(found)}"
    yield ""
    rows = table(found, every)
    yield from columns(HEADER, rows, left=2)
    if len(rows) < len(found.comparison.rows):
        yield f"({len(found.comparison.rows) - len(rows)} more with --all)"


def _measures(row: Row) -> dict[str, Any]:
    if row.measures is None:
        return {}
    data = asdict(row.measures)
    del data["name"]
    return data


def _plain(value: Any) -> Any:
    if isinstance(value, dict):
        return {key: _plain(held) for key, held in value.items()}
    if isinstance(value, list | tuple):
        return [_plain(held) for held in value]
    if isinstance(value, np.generic):
        value = value.item()
    return None if isinstance(value, float) and not math.isfinite(value) else value
