"""What a folder of results holds, as text, however far the run got."""

from collections.abc import Iterator
from typing import Any

from gpu import figures
from gpu.folder import NEVER, OK, RUNNING, Data, Folder, is_well
from gpu.parts import BY_NAME
from gpu.what import BATCHES, PRECISIONS, PYTORCH, layers_piece
from resnet_ref.tables import columns

DEEDS = {RUNNING: "it was at work when the run ended, or is", NEVER: "the run ended before"}


def text(folder: Folder) -> str:
    """Tables: the parts; times; bars; the model of tiles.py beside what was measured; and all that went wrong."""
    sections = [_parts(folder), _failures(folder), _times(folder), _bars(folder), _models(folder)]
    return "\n\n".join("\n".join(section) for section in [[figures.device(folder)], *sections] if section)


def _parts(folder: Folder) -> list[str]:
    rows = []
    for name in folder.asked():
        outcome, wanted = folder.outcome(name), BY_NAME[name].pieces if name in BY_NAME else ()
        well = sum(is_well(folder.piece(name, piece)) for piece in wanted)
        took = f"{outcome.seconds:.0f} of {outcome.limit:.0f} s" if outcome.limit else ""
        pieces = f"{well} of {len(wanted)}" if wanted else ""
        rows.append((name, outcome.state, took, pieces, outcome.said or DEEDS.get(outcome.state, "")))
    return columns(("part", "", "took", "pieces", ""), rows, 5) if rows else ["nothing was asked for"]


def _failures(folder: Folder) -> list[str]:
    return [
        f"{part}, {name}: FAILED, {data['failed']}"
        for part in folder.asked()
        for name, data in folder.pieces(part).items()
        if not is_well(data)
    ]


def _times(folder: Folder) -> list[str]:
    peers = [f"PyTorch {peer}" for peer in PYTORCH]
    header = ("ms", "batch", "ours", "images/s", "a call", "from host", *peers, "error")
    rows = [
        (
            speed.precision,
            str(speed.batch),
            _ms(speed.graph),
            f"{speed.batch / speed.graph:.0f}",
            *map(_ms, (speed.call, speed.host, *speed.pytorch.values())),
            f"{speed.error:.1e}",
        )
        for speed in figures.speeds(folder)
    ]
    return columns(header, rows) if rows else []


def _ms(seconds: float | None) -> str:
    return "-" if seconds is None else f"{1000 * seconds:.3f}"


def _bars(folder: Folder) -> list[str]:
    if not set(figures.TIMED) <= set(folder.asked()):
        return []
    rows = []
    for bar in figures.bars(folder):
        verdict = "met" if bar.is_met else "missed, an aim" if bar.is_aim else "MISSED"
        found = "not measured" if bar.found is None else f"{bar.found:.2f}"
        what = f"{bar.precision} against PyTorch's {bar.peer}"
        rows.append((what, str(bar.batch), f"{bar.least:.1f}", found, verdict))
    return columns(("bar", "batch", "at least", "found", ""), rows)


def _models(folder: Folder) -> list[str]:
    header = ("tiles.py, all layers, ms", "batch", "predicted", "its choice", "the fastest", "its first is fastest")
    rows = list(_model_rows(folder))
    return columns(header, rows) if rows else []


def _model_rows(folder: Folder) -> Iterator[tuple[str, ...]]:
    for precision in PRECISIONS:
        for batch in BATCHES:
            data = folder.piece("ours", layers_piece(precision, batch))
            if data is not None and is_well(data) and data.get("kinds"):
                yield precision, str(batch), *_model(data)


def _model(data: Data) -> tuple[str, ...]:
    """Sums over all layers, timed one by one and cold."""
    kinds: list[dict[str, Any]] = data["kinds"]
    predicted = sum(len(kind["layers"]) * kind["ways"][0]["predicted"] for kind in kinds)
    chosen = sum(len(kind["layers"]) * kind["ways"][0]["median"] for kind in kinds)
    fastest = sum(len(kind["layers"]) * min(way["median"] for way in kind["ways"]) for kind in kinds)
    first = sum(kind["ways"][0]["median"] <= min(way["median"] for way in kind["ways"]) for kind in kinds)
    return _ms(predicted), _ms(chosen), _ms(fastest), f"{first} of {len(kinds)} kinds"


def all_asked_is_well(folder: Folder) -> bool:
    """Whether there was something asked for, and all of it is well (see figures.all_well)."""
    return bool(folder.asked()) and figures.all_well(folder, folder.asked())


def ran(folder: Folder, part: str) -> str:
    """For a sentence."""
    state = folder.outcome(part).state
    return {OK: "nothing wrong", NEVER: "not run"}.get(state, state)
