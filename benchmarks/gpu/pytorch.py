"""The part `pytorch`: PyTorch on the same network, images and device, as one CUDA graph, in each of its precisions.

python -m gpu.pytorch FOLDER
"""

import sys
import tempfile
from functools import partial
from itertools import product
from pathlib import Path
from typing import Any

from gpu import what
from gpu.folder import Pieces
from gpu.networks import network
from resnet_ref.bench.contenders import Contender
from resnet_ref.bench.files import Files, make_network_files, prepare, wanted
from resnet_ref.bench.torch_cuda import torch_cuda
from resnet_ref.errors import BenchError


def about() -> dict[str, Any]:
    """Its versions; BenchError where it cannot use the GPU."""
    found = torch_cuda()
    if found is None:
        raise BenchError("this PyTorch cannot be imported, was built without CUDA, or finds no GPU")
    return found


def measured(files: Files, precision: str, batch: int) -> dict[str, Any]:
    """See networks.network."""
    engine = what.PYTORCH[precision]
    contender = Contender(engine, engine, {"device": "gpu"}, precision)
    make_network_files(files, [contender])
    return network(contender, files, batch)


def main(folder: str) -> int:
    pieces = Pieces(folder, "pytorch")
    if pieces.keep("about", about):
        with tempfile.TemporaryDirectory() as scratch:
            files = prepare(Path(scratch), wanted(None, what.VARIANT, None, None, what.SIZE))
            for precision, batch in product(what.PYTORCH, what.BATCHES):
                pieces.keep(what.network_piece(precision, batch), partial(measured, files, precision, batch))
    return pieces.status


if __name__ == "__main__":
    sys.exit(main(sys.argv[1]))
