"""What a folder of results says of speed: times by precision and batch, and how they stand to what they must be."""

from dataclasses import dataclass, replace

from gpu.folder import OK, Data, Folder, is_well
from gpu.what import BATCHES, PRECISIONS, PYTORCH, network_piece


@dataclass(frozen=True)
class Bar:
    """How fast the tier has to be. peer: PyTorch's precision. least: of its time over ours; found: None where it was
    not measured. is_aim: whether missing it is no failure."""

    precision: str
    batch: int
    peer: str
    least: float
    is_aim: bool
    found: float | None = None

    @property
    def is_met(self) -> bool:
        """Whether it was measured and is fast enough."""
        return self.found is not None and self.found >= self.least


BARS = (
    *(Bar("float32", batch, "float32", 1.0, False) for batch in BATCHES),
    Bar("tf32x3", 64, "float32", 1.5, True),
    Bar("tf32", 64, "tf32", 0.8, False),
)
TIMED = ("ours", "pytorch")  # the parts that bars are about


def bars(folder: Folder) -> list[Bar]:
    """The bars with what was found: both sides one graph after the other, by the device's clock."""
    return [replace(bar, found=_found(folder, bar)) for bar in BARS]


def _found(folder: Folder, bar: Bar) -> float | None:
    peer, ours = pytorch(folder, bar.peer, bar.batch), network(folder, bar.precision, bar.batch)
    return None if peer is None or ours is None else median(peer, "graph") / median(ours, "graph")


def network(folder: Folder, precision: str, batch: int) -> Data | None:
    """Ours; None where it was not measured."""
    return _well(folder, "ours", network_piece(precision, batch))


def pytorch(folder: Folder, precision: str, batch: int) -> Data | None:
    """PyTorch's; None where it was not measured."""
    return _well(folder, "pytorch", network_piece(precision, batch))


def _well(folder: Folder, part: str, name: str) -> Data | None:
    data = folder.piece(part, name)
    try:
        return data if data is not None and is_well(data) and median(data, "graph") > 0 else None
    except (KeyError, TypeError):  # it is JSON, and no times
        return None


def median(data: Data, what: str) -> float:
    """In seconds."""
    return data[what]["median"]


@dataclass(frozen=True)
class Speed:
    """A precision at a batch, in seconds: ours as `graph`, `call` and `host` (see networks.py, ours.py); PyTorch's
    graph by its precision, or None. error: of ours, at the logits, of the largest there."""

    precision: str
    batch: int
    graph: float
    call: float
    host: float
    pytorch: dict[str, float | None]
    error: float


def speeds(folder: Folder) -> list[Speed]:
    """All that were measured."""
    found = []
    for precision in PRECISIONS:
        for batch in BATCHES:
            if (ours := network(folder, precision, batch)) is None:
                continue
            theirs = {peer: pytorch(folder, peer, batch) for peer in PYTORCH}
            peers = {peer: None if data is None else median(data, "graph") for peer, data in theirs.items()}
            times = (median(ours, what) for what in ("graph", "call", "host"))
            found.append(Speed(precision, batch, *times, peers, ours["error"]))
    return found


def device(folder: Folder) -> str:
    """Its name."""
    return str((folder.piece("versions", "device") or {}).get("device", "an unnamed device"))


def all_well(folder: Folder, parts: list[str]) -> bool:
    """Whether every one of these parts ran to its end and is well, and every bar but the aims is met, where both sides
    are among them."""
    ran = all(folder.outcome(part).state == OK for part in parts)
    return ran and (not set(TIMED) <= set(parts) or all(bar.is_met or bar.is_aim for bar in bars(folder)))
