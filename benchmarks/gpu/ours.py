"""The part `ours`: ours alone, so that no other engine can lose these times: first the networks, then their layers.

python -m gpu.ours FOLDER
"""

import sys
import tempfile
from dataclasses import asdict
from functools import cache, partial
from itertools import product
from pathlib import Path
from typing import Any

from gpu import networks, what
from gpu.folder import Pieces
from gpu.layers import Layers
from gpu.timing import timed
from resnet_ref import kernels
from resnet_ref.bench import machine
from resnet_ref.bench.contenders import our_contenders
from resnet_ref.bench.files import Files, prepare, wanted
from resnet_ref.bench.peaks import peak


def network(files: Files, precision: str, batch: int) -> dict[str, Any]:
    """See networks.network; and `host`, from the host's memory to the host's memory."""
    there, here = our_contenders([], {"device": "gpu", "precision": precision})
    found = networks.network(there, files, batch)
    return {**found, "host": timed(partial(networks.calls, networks.opened(here, files, batch)))}


def main(folder: str) -> int:
    runtime = kernels.on("gpu").runtime
    assert runtime is not None
    pieces = Pieces(folder, "ours")
    both = list(product(what.PRECISIONS, what.BATCHES))
    with tempfile.TemporaryDirectory() as scratch:
        files = prepare(Path(scratch), wanted(None, what.VARIANT, None, None, what.SIZE))
        for precision, batch in both:
            pieces.keep(what.network_piece(precision, batch), partial(network, files, precision, batch))
        pieces.keep("peak", lambda: asdict(peak("gpu", 1)))
        layers = cache(lambda: Layers(runtime, files, machine.gpu(runtime)["l2"]))
        for precision, batch in both:
            pieces.keep(
                what.layers_piece(precision, batch),
                lambda precision=precision, batch=batch: layers().timed(precision, batch),  # type: ignore[misc]
            )
    return pieces.status


if __name__ == "__main__":
    sys.exit(main(sys.argv[1]))
