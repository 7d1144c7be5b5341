"""The part `ladder`: `resnet-ref bench --ladder` on the kinds of convolution that multiply most.

python -m gpu.ladder FOLDER
"""

import sys
from typing import Any

from gpu import what
from gpu.folder import Folder, Pieces, write
from resnet_ref.bench import ladder_report
from resnet_ref.bench.files import wanted
from resnet_ref.bench.ladder import Kind, climbing, kinds
from resnet_ref.kernels.vector.executor import thread_count
from resnet_ref.network import Network

KINDS = 8
ROUNDS = 2
COMMAND = "python benchmarks/gpu_check.py --only ladder"
MEASURED, COMPLETE = "measured", "complete"  # pieces: as `bench --ladder -o` writes it, so far; and that it is all


def heaviest(network: Network, shape: tuple[int, ...]) -> list[Kind]:
    """In the network's order."""
    found = kinds(network, shape)
    most = sorted(found, key=lambda kind: kind.flops, reverse=True)[:KINDS]
    return [kind for kind in found if kind in most]


def climb(folder: Folder) -> dict[str, Any]:
    """Measures them all, and keeps what it has after each, unless an earlier run got further."""
    given = wanted(None, what.VARIANT, None, None, what.SIZE)
    shape = (1, *given.size, given.network.channels)
    some = heaviest(given.network, shape)
    for found in climbing(given.network, shape, "gpu", thread_count(None), ROUNDS, some):
        data = {"command": COMMAND, **ladder_report.to_json(found)}
        if len(data["kinds"]) > len((folder.piece("ladder", MEASURED) or {}).get("kinds", [])):
            write(folder.path / "ladder" / f"{MEASURED}.json", data)
        print(f"{len(found.rows)} of {len(some)}: {some[len(found.rows) - 1].text}", flush=True)
    return {"kinds": len(some)}


def main(folder: str) -> int:
    pieces = Pieces(folder, "ladder")
    pieces.keep(COMPLETE, lambda: climb(pieces.folder))
    return pieces.status


if __name__ == "__main__":
    sys.exit(main(sys.argv[1]))
