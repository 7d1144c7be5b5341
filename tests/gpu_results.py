"""The modules of benchmarks/gpu_check.py; and a folder of results as it leaves it, made up: every part is well, and
ours twice as fast."""

import json
import sys
from pathlib import Path
from typing import Any

BENCHMARKS = Path(__file__).parents[1] / "benchmarks"
sys.path.insert(0, str(BENCHMARKS))
import gpu_check  # noqa: E402, F401
import gpu_kernels_once  # noqa: E402, F401
import readme_table  # noqa: E402, F401
from gpu import (  # noqa: E402, F401
    figures,
    folder,
    ladder,
    layers,
    needs,
    networks,
    ours,
    parts,
    pytorch,
    runner,
    summary,
    timing,
    versions,
    what,
)

sys.path.remove(str(BENCHMARKS))

OURS, PYTORCH = 0.002, 0.004  # seconds of every graph
KINDS = [
    {"kind": "a", "layers": ["one", "two"], "m_n_k": [8, 4, 2], "flops": 128, "ways": [
        {"way": "float32 32x64", "predicted": 1e-3, "median": 3e-3},
        {"way": "float32 64x64", "predicted": 2e-3, "median": 2e-3},
    ]},
    {"kind": "b", "layers": ["three"], "m_n_k": [8, 4, 2], "flops": 128, "ways": [
        {"way": "float32 32x64", "predicted": 1e-3, "median": 1e-3}
    ]},
]  # fmt: skip


def times(seconds: float) -> dict[str, Any]:
    """What timing.timed keeps."""
    return {"median": seconds, "quartiles": [seconds, seconds], "runs": 3, "seconds": [seconds] * 3}


def piece(part: str, name: str) -> dict[str, Any]:
    """What a part leaves under a name."""
    if name.startswith("network"):
        seconds = OURS if part == "ours" else PYTORCH
        whats = {"graph": seconds, "call": seconds + 0.001, "host": seconds + 0.002}
        return {"error": 1e-6, **{what: times(taken) for what, taken in whats.items()}}
    if name.startswith("layers"):
        return {"kinds": KINDS, "cache": "flushed"}
    return {"device": "NVIDIA H200", "sources": "s1"} if name == "device" else {"ok": True}


def lay(path: Path, part: Any) -> Path:
    """All pieces of a part, in a folder of its name."""
    place = path / part.name
    place.mkdir(parents=True, exist_ok=True)
    for name in part.pieces:
        (place / f"{name}.json").write_text(json.dumps(piece(part.name, name)))
    return place


def lay_all(path: Path) -> Path:
    """The whole folder, every usual part ok."""
    made = folder.Folder(path)
    usual = [part for part in parts.PARTS if part.is_usual]
    made.ask(part.name for part in usual)
    for part in usual:
        lay(path, part)
        made.close(part.name, folder.Outcome("ok", "well", 5, part.seconds))
    return path
