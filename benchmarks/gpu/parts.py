"""The parts of the check, in order of their worth: what is lost when the time is up is worth the least."""

import re
import sys
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from importlib.util import find_spec
from pathlib import Path

from gpu import needs
from gpu.folder import Folder
from gpu.what import BATCHES, PRECISIONS, PYTORCH, layers_piece, network_piece

BENCHMARKS = Path(__file__).resolve().parents[1]
ROOT = BENCHMARKS.parent
ONCE = BENCHMARKS / "gpu_kernels_once.py"
NO_GPU = 2  # the status with which `versions` says so


@dataclass(frozen=True)
class Part:
    """A process. seconds: that it may take. command: its line, given the folder of results. pieces: that it has to
    leave there. needs: of needs.NEEDS. bad: what a line of its log that tells of a fault begins with. is_usual: whether
    it runs unasked."""

    name: str
    seconds: int
    what: str
    command: Callable[[Folder], Sequence[str]]
    pieces: Sequence[str] = ()
    needs: Sequence[str] = ()
    bad: str = "$^"
    is_usual: bool = True
    environment: dict[str, str] = field(default_factory=dict)


def _module(name: str) -> Callable[[Folder], Sequence[str]]:
    return lambda folder: [sys.executable, "-m", name, str(folder.path)]


def _tests(_: Folder) -> Sequence[str]:
    """Those of a GPU; of files that have none not even the imports, for which a bare machine may lack something."""
    asks = re.compile(r"mark\.gpu|\bGPU\b|TIERS\b")
    files = [path for path in (ROOT / "tests").glob("test_*.py") if asks.search(path.read_text("utf-8"))]
    files.sort(key=lambda path: (not path.name.startswith("test_gpu"), path.name))
    marked = "gpu and not peers" + ("" if find_spec("tensorflow") else " and not oracle")
    options = ["-v", "--tb=short", "-n", "0", "-m", marked, "-p", "no:cacheprovider", "--rootdir", str(ROOT)]
    return [sys.executable, "-m", "pytest", *options, *map(str, files)]


def _sanitizer(tool: str, seconds: int, is_usual: bool) -> Part:
    def command(_: Folder) -> Sequence[str]:
        return [str(needs.find_sanitizer()), "--tool", tool, "--error-exitcode", "9", sys.executable, str(ONCE)]

    bad = r"=========\s+(Invalid|Error|Race|Uninitialized|Barrier|Divergent|Program hit)"
    what = f"compute-sanitizer's {tool}, over every kernel"
    return Part(tool, seconds, what, command, needs=[needs.SANITIZER], bad=bad, is_usual=is_usual)


KERNELS = [f"{what}_{precision}" for precision in PRECISIONS for what in ("convolutions", "networks")]
OURS = [
    piece(precision, batch) for piece in (network_piece, layers_piece) for precision in PRECISIONS for batch in BATCHES
]
PARTS = (
    Part("versions", 30, "which device, driver and versions", _module("gpu.versions"), ["device"]),
    Part(
        "kernels", 45, "every kernel once, against the definition", _module("gpu_kernels_once"),
        ["others", *KERNELS, "ladder", "roofs"],
    ),
    Part("ours", 100, "ours alone: the network, then every way of each layer", _module("gpu.ours"), [*OURS, "peak"]),
    Part(
        "pytorch", 120, "PyTorch on the same network", _module("gpu.pytorch"),
        ["about", *(network_piece(precision, batch) for precision in PYTORCH for batch in BATCHES)], [needs.PYTORCH],
    ),
    Part(
        "tests", 100, "the tests that want a GPU", _tests, needs=[needs.PYTEST], bad=r"\S+::.* (FAILED|ERROR)\b",
        environment={"RESNET_REF_NEEDS_GPU": "1"},
    ),
    _sanitizer("memcheck", 40, True),
    _sanitizer("racecheck", 40, True),
    Part("ladder", 120, "the ladder, on 8 kinds of convolution", _module("gpu.ladder"), ["complete"]),
    _sanitizer("initcheck", 60, False),
    _sanitizer("synccheck", 60, False),
)  # fmt: skip
BY_NAME = {part.name: part for part in PARTS}
