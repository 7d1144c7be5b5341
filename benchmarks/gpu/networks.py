"""A whole network on the gpu, of ours or of PyTorch, checked and then timed."""

from functools import partial
from pathlib import Path
from typing import Any

import numpy as np

from gpu.timing import timed
from resnet_ref.bench import serve
from resnet_ref.bench.agreement import error, require_agreement, truth
from resnet_ref.bench.contenders import Contender
from resnet_ref.bench.files import Files
from resnet_ref.bench.process import Outputs, job_of
from resnet_ref.kernels.vector.executor import thread_count

_known: dict[tuple[Path, int], Outputs] = {}


def true(files: Files, batch: int) -> Outputs:
    """The definition in float64 (see `agreement.truth`), once for the same files and batch."""
    if (files.folder, batch) not in _known:
        _known[files.folder, batch] = truth(files, batch)
    return _known[files.folder, batch]


def network(contender: Contender, files: Files, batch: int) -> dict[str, Any]:
    """Its times in seconds: `graph`, as one CUDA graph after the other, by the device's clock; `call`, from images on
    the device to the result there, synchronised. error: at the logits, against float64 (see `agreement.error`).

    VerificationError where it computes something else, and then nothing is timed.
    """
    engine = opened(contender, files, batch)
    outputs = computed(engine, files)
    require_agreement({contender.name: outputs}, true(files, batch), {contender.name: contender.precision})
    assert engine.clock is not None
    found = {"graph": timed(engine.clock), "call": timed(partial(calls, engine))}
    return {"error": error(outputs, true(files, batch)), "batch": batch, "precision": contender.precision, **found}


def opened(contender: Contender, files: Files, batch: int) -> serve.Engine:
    """The contender, in this process."""
    return serve.ENGINES[contender.engine](job_of(contender, files, batch, thread_count(None)))


def calls(engine: serve.Engine, runs: int) -> list[float]:
    """Seconds of so many calls, by the host's clock."""
    return serve.obey(engine, {"runs": runs, "warm": 0})["seconds"]


def computed(engine: serve.Engine, files: Files) -> Outputs:
    """What it computes."""
    path = files.folder / "outputs.npz"
    serve.obey(engine, {"outputs": path})
    with np.load(path) as found:
        return Outputs(found["result"], found.get("logits"))
