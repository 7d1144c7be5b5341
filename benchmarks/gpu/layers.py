"""Every way to compute each convolution of a network, timed alone and cold, beside what the model of tiles.py says.

A way is timed within a plan in which every convolution is computed by its way of that number, and the plan's outputs
are checked first. Convolutions of one kind cost the same, and the first of them stands for all.
"""

import math
from collections.abc import Callable, Sequence
from functools import partial
from itertools import cycle
from typing import Any

import numpy as np

from gpu.networks import true
from gpu.timing import summed_up
from resnet_ref.bench.agreement import require_agreement
from resnet_ref.bench.files import Files
from resnet_ref.bench.process import Outputs
from resnet_ref.kernels.conv2d import tiles
from resnet_ref.kernels.conv2d.gpu import ways
from resnet_ref.kernels.conv2d.tiles import Way
from resnet_ref.kernels.cuda.launch import BLOCK, Launch, int32
from resnet_ref.kernels.cuda.peak import SOURCE
from resnet_ref.kernels.cuda.runtime import Runtime
from resnet_ref.plan.gpu.choice import Convolution, candidates
from resnet_ref.plan.gpu.lowering import Lowering
from resnet_ref.plan.gpu.program import GpuProgram
from resnet_ref.plan.gpu.weights import DeviceWeights
from resnet_ref.plan.plan import RESULT

RUNS, WARM = 9, 2
TIMES = 2  # as large as the L2 cache is what is read before each run, and as large what is written


class Flush:
    """Fills the L2 cache with other numbers: a launch that copies more than it holds."""

    def __init__(self, runtime: Runtime, l2: int) -> None:
        """l2: bytes of the cache."""
        count = math.ceil(TIMES * l2 / 16)  # of four float32
        x = runtime.upload(np.arange(4 * count, dtype=np.float32))
        y = runtime.empty(x.shape, np.float32)
        self._runtime, self.bytes = runtime, x.nbytes
        self._launch = Launch(SOURCE, "copy", (-(-count // BLOCK), 1, 1), BLOCK, (x, y, *int32(count)))

    def __call__(self) -> None:
        self._runtime.launch(self._launch)


def cold_seconds(runtime: Runtime, flush: Callable[[], None], run: Callable[[], None]) -> Sequence[float]:
    """Of each timed run, by the device's clock, before each of which the cache is flushed."""
    turns = cycle([flush, run])
    return runtime.seconds(lambda: next(turns)(), 2 * (WARM + RUNS))[1::2][WARM:]


def judged(runtime: Runtime, precision: str, conv: Convolution) -> list[Way]:
    """The ways that tuning would try, the model's choice first, and of each tile that is not among them its best."""
    tried = list(candidates(runtime, precision, conv))
    for way in ways(runtime, conv.x, conv.w, conv.rows, conv.cols, precision):
        if way.tile not in [other.tile for other in tried]:
            tried.append(way)
    return tried


class Layers:
    """The convolutions of one network on one device."""

    def __init__(self, runtime: Runtime, files: Files, l2: int) -> None:
        """l2: bytes of the device's cache."""
        self._runtime, self._files = runtime, files
        self._weights = DeviceWeights(runtime, files.weights)
        self._flush, self._l2 = Flush(runtime, l2), l2

    def timed(self, precision: str, batch: int) -> dict[str, Any]:
        """Times in seconds: of each way of each kind of convolution what the model predicts, and what was measured."""
        noted: dict[str, Convolution] = {}

        def note(conv: Convolution) -> Way:
            noted.setdefault(conv.kind, conv)
            return candidates(self._runtime, precision, conv)[0]

        steps = [step for step in self._lowered(batch, note).steps if step.kind is not None]
        tried = {kind: judged(self._runtime, precision, conv) for kind, conv in noted.items()}
        rows = {kind: self._row(kind, conv) for kind, conv in noted.items()}
        for step in steps:
            rows[step.kind]["layers"].append(step.name)
        for number in range(max(map(len, tried.values()))):
            for kind, seconds in self._seconds(precision, batch, tried, number).items():
                way = tried[kind][number]
                predicted = tiles.seconds(way, *rows[kind]["m_n_k"], self._runtime.multiprocessors)
                rows[kind]["ways"].append({"way": way.name, "predicted": predicted, **summed_up(seconds)})
        return {
            "precision": precision,
            "batch": batch,
            "cache": f"flushed: {self._flush.bytes} bytes read and as many written before each run; L2 has {self._l2}",
            "l2": self._l2,
            "chosen": "the first of the ways",
            "kinds": list(rows.values()),
        }

    def _lowered(self, batch: int, choose: Callable[[Convolution], Way]) -> Lowering:
        network, logits = self._files.network, self._files.logits
        outputs = [RESULT, *([logits] if logits else [])]
        shape = (batch, *self._files.size, network.channels)
        return Lowering(network.describe, self._weights, shape, outputs, choose)

    @staticmethod
    def _row(kind: str, conv: Convolution) -> dict[str, Any]:
        pixels = conv.x[0] * conv.rows.out(conv.x[1]) * conv.cols.out(conv.x[2])
        sizes = [pixels, conv.w[3], math.prod(conv.w[:3])]
        return {"kind": kind, "layers": [], "m_n_k": sizes, "flops": 2 * math.prod(sizes), "ways": []}

    def _seconds(
        self, precision: str, batch: int, tried: dict[str, list[Way]], number: int
    ) -> dict[str, Sequence[float]]:
        """Of each kind that has a way of that number."""
        runtime = self._runtime
        lowered = self._lowered(batch, lambda conv: tried[conv.kind][min(number, len(tried[conv.kind]) - 1)])
        program = GpuProgram(runtime, lowered)
        images = runtime.pinned(program.images.shape, np.float32)
        images[...] = self._files.images(batch)
        runtime.copy_in(images, program.images)
        program.run()
        found = {name: runtime.download(program.view(one.buffer, one.shape)) for name, one in lowered.outputs.items()}
        who = f"ours in {precision}, ways {number}"
        outputs = Outputs(found[RESULT], found.get(self._files.logits or ""))
        require_agreement({who: outputs}, true(self._files, batch), {who: precision})
        taken: dict[str, Sequence[float]] = {}
        for step in program.steps:
            kind = step.step.kind
            if kind is not None and kind not in taken and number < len(tried[kind]):
                graph = runtime.capture(partial(step.run, runtime))
                taken[kind] = cold_seconds(runtime, self._flush, graph.launch)
        return taken
