"""The folder of results. Each file is written whole the moment there is something to write, so that whoever is killed
loses no more than what he was at.

FOLDER/asked.json         the parts that were asked for
FOLDER/PART.json          how a part ended (see Outcome); while it is at work, that it began
FOLDER/PART/PIECE.json    what it found, or {"failed": why}
FOLDER/PART.log           what it printed
"""

import json
import shutil
import time
import traceback
from collections.abc import Callable, Iterable, Mapping
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from resnet_ref import ResnetRefError
from resnet_ref.weights.atomic import replacing

OK, FAILED, CUT, SKIPPED, MISSING, RUNNING = "ok", "FAILED", "CUT", "SKIPPED", "MISSING", "RUNNING"
NEVER = "never began"

Data = dict[str, Any]


@dataclass(frozen=True)
class Outcome:
    """How a part ended. said: why, or its last words. seconds: that it took; limit: that it had."""

    state: str
    said: str = ""
    seconds: float = 0.0
    limit: float = 0.0


class Folder:
    """One folder; what is there and cannot be read counts as failed."""

    def __init__(self, path: Path) -> None:
        self.path = path.absolute()

    def asked(self) -> list[str]:
        """The parts that were ever asked for."""
        names = (read(self.path / "asked.json") or {}).get("parts", [])
        return [str(name) for name in names] if isinstance(names, list) else []

    def ask(self, parts: Iterable[str]) -> None:
        """Notes that these are asked for too."""
        write(self.path / "asked.json", {"parts": list(dict.fromkeys([*self.asked(), *parts]))})

    def outcome(self, part: str) -> Outcome:
        """How it ended, or that it never began."""
        data = read(self.path / f"{part}.json")
        if data is None:
            return Outcome(NEVER)
        try:
            return Outcome(**data)
        except TypeError:
            return Outcome(FAILED, f"{part}.json does not say how it ended")

    def close(self, part: str, outcome: Outcome) -> None:
        """Notes how a part ended."""
        write(self.path / f"{part}.json", asdict(outcome))

    def log(self, part: str) -> Path:
        """What it printed."""
        return self.path / f"{part}.log"

    def piece(self, part: str, name: str) -> Data | None:
        """What it found; None where there is nothing yet."""
        return read(self.path / part / f"{name}.json")

    def pieces(self, part: str) -> dict[str, Data]:
        """All that it found, by name."""
        found = {path.stem: read(path) for path in sorted((self.path / part).glob("*.json"))}
        return {name: data for name, data in found.items() if data is not None}

    def forget(self, part: str) -> None:
        """Removes all that is known of a part."""
        shutil.rmtree(self.path / part, ignore_errors=True)
        for path in (self.path / f"{part}.json", self.log(part)):
            path.unlink(missing_ok=True)

    def adopt(self, other: "Folder", part: str) -> None:
        """Takes what another folder knows of a part, over what is here."""
        self.close(part, other.outcome(part))
        for name, data in other.pieces(part).items():
            write(self.path / part / f"{name}.json", data)
        if other.log(part).exists():
            shutil.copyfile(other.log(part), self.log(part))


class Pieces:
    """What a part's own process keeps of what it finds. `status`: what it should end with."""

    def __init__(self, folder: str, part: str) -> None:
        self.folder, self.part, self.status = Folder(Path(folder)), part, 0

    def keep(self, name: str, find: Callable[[], Mapping[str, Any]]) -> bool:
        """Keeps what `find` gives, or why it failed; whether it is well. What is there already is not found again."""
        if is_well(self.folder.piece(self.part, name)):
            return True
        begin = time.perf_counter()
        try:
            data = dict(find())
        except Exception as error:  # whatever it is, the next one may be well
            if not isinstance(error, ResnetRefError):
                traceback.print_exc()
            said = str(error) if isinstance(error, ResnetRefError) else f"{type(error).__name__}: {error}"
            data = {"failed": " ".join(said.split())}
            self.status = 1
        write(self.folder.path / self.part / f"{name}.json", data)
        print(f"{name}: {data.get('failed', 'ok')}, {time.perf_counter() - begin:.1f} s", flush=True)
        return is_well(data)


def is_well(piece: Data | None) -> bool:
    """Whether it is there, and no failure."""
    return piece is not None and "failed" not in piece


def read(path: Path) -> Data | None:
    """A file's object; None for none, a failure where there is something else."""
    try:
        data = json.loads(path.read_text("utf-8"))
    except FileNotFoundError:
        return None
    except (OSError, ValueError, RecursionError):
        data = None
    return data if isinstance(data, dict) else {"failed": f"{path.name} holds no JSON object"}


def write(path: Path, data: Mapping[str, Any]) -> None:
    """The file, whole or not at all."""
    path.parent.mkdir(parents=True, exist_ok=True)
    with replacing(path) as part:
        part.write_text(json.dumps(data, indent=1) + "\n", "utf-8")
