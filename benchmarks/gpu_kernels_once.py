"""Every kernel of the gpu tier on ragged shapes, each result compared with the definition's.

    python benchmarks/gpu_kernels_once.py [FOLDER]

Small and quick: made to run under compute-sanitizer, and alone as a part of gpu_check.py, which keeps in FOLDER how
each check ended. Whole networks are among them, because their plans reach what single calls do not: graphs, memory that
buffers share, the epilogues of bounded activations.
"""

import math
import sys
import tempfile
from collections.abc import Callable, Iterator, Sequence
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
from gpu.folder import Pieces

from resnet_ref import ResnetRefError, kernels, load_model, save_weights
from resnet_ref.bench.agreement import allowed
from resnet_ref.kernels.conv2d.gpu import has_precision
from resnet_ref.kernels.conv2d.ladder.problem import Problem
from resnet_ref.kernels.conv2d.ladder.rungs import GPU, ladder
from resnet_ref.kernels.cuda.cupy_runtime import cupy
from resnet_ref.kernels.cuda.peak import copy_peak, fma_peak
from resnet_ref.kernels.cuda.runtime import Runtime
from resnet_ref.kernels.geometry import Window, fixed, same, valid
from resnet_ref.network import Network
from resnet_ref.plan.offer import PRECISIONS_OF
from resnet_ref.random_weights import random_variables

# x [N, H, W, C], F, rows, cols: C and F divisible by 4 or not, one tap or several, few pixels and many products (which
# are split) and the reverse; strides, rates and pads that differ between rows and columns.
CONVOLUTIONS = [
    ((2, 13, 11, 5), 7, same(13, 3, 2), same(11, 3, 1, 2)),
    ((3, 9, 7, 8), 12, valid(1), valid(1)),
    ((3, 9, 7, 7), 12, valid(1, 2), valid(1, 3)),
    ((2, 23, 18, 3), 64, fixed(7, 2), fixed(7, 2)),
    ((1, 5, 4, 260), 68, fixed(3), fixed(3)),
    ((1, 3, 4, 1030), 9, valid(1), valid(1)),
    ((2, 31, 17, 12), 130, Window(2, 1, 3, 1, 2), Window(5, 3, 1, 0, 4)),
]
NETWORK: dict[str, Any] = {
    "function": "resnet_v1",
    "num_classes": 5,
    "scope": "ragged",
    "blocks": [
        {"scope": "block1", "args": [{"depth": 12, "depth_bottleneck": 3, "stride": s} for s in (1, 2)]},
        {"scope": "block2", "args": [{"depth": 20, "depth_bottleneck": 6, "stride": 1}]},
    ],
}
NETWORKS = [NETWORK, {**NETWORK, "arg_scope": {"use_bounded_activations": True}}]
SIZE = (61, 46)

Call = tuple[str, tuple[Any, ...], dict[str, Any]]  # a kernel's name, its arguments, and those by name


def convolutions(rng: np.random.Generator) -> Iterator[Call]:
    """conv2d with every epilogue."""
    for shape, depth, rows, cols in CONVOLUTIONS:
        taps = rows.size * cols.size * shape[3]
        x, w = _normal(rng, *shape), _normal(rng, rows.size, cols.size, shape[3], depth) / np.float32(math.sqrt(taps))
        oh, ow = rows.out(shape[1]), cols.out(shape[2])
        yield "conv2d", (x, w, rows, cols), {}
        epilogue = {"bias": 3 * _normal(rng, depth), "activation": "relu"}
        yield "conv2d", (x, w, rows, cols), {**epilogue, "residual": _normal(rng, shape[0], oh, ow, depth)}
        strided = {"residual": _normal(rng, shape[0], 2 * oh - 1, 2 * ow, depth), "residual_stride": 2}
        yield "conv2d", (x, w, rows, cols), {**epilogue, **strided, "activation": "relu6"}


def others(rng: np.random.Generator) -> Iterator[Call]:
    """Every kernel but conv2d."""
    for channels in (8, 5, 301):
        x, y = _normal(rng, 2, 13, 11, channels), _normal(rng, 2, 13, 11, channels)
        gamma, beta, mean = (_normal(rng, channels) for _ in range(3))
        variance = np.abs(_normal(rng, channels)) + 1
        windows = same(13, 3, 2), fixed(3, 2)
        yield "im2col", (x, *windows), {}
        yield "batch_norm", (x, gamma, beta, mean, variance, 1e-3), {"activation": "relu6"}
        yield "batch_norm", (x, None, beta, mean, variance, 1e-3), {}
        yield "batch_statistics", (x,), {}
        yield "moving_average", (mean, beta, 0.9), {}
        yield "unbiased", (variance, 2 * 13 * 11), {}
        yield "max_pool2d", (x, *windows), {}
        yield "subsample", (x, 2), {}
        yield "spatial_mean", (x,), {}
        yield "add_bias", (x, beta), {}
        yield "relu", (x,), {}
        yield "relu6", (x,), {}
        yield "add_relu", (x, y), {}
        yield "add_relu6", (x, y), {}
        yield "softmax", (x,), {}


def check_kernels(precision: str, calls: Callable[[np.random.Generator], Iterator[Call]]) -> set[str]:
    """Run the calls on the gpu and by the definition; the kernels' names. ResnetRefError where two results differ."""
    tier, definition = kernels.for_numpy(kernels.on("gpu", precision=precision)), kernels.on("definition")
    called = set()
    for name, arguments, options in calls(np.random.default_rng(0)):
        found, true = (_all(getattr(on, name)(*arguments, **options)) for on in (tier, definition))
        shapes = [argument.shape for argument in arguments if isinstance(argument, np.ndarray)]
        for ours, right in zip(found, true, strict=True):
            _require_near(f"{name} in {precision} on {shapes}", ours, right, allowed(precision))
        called.add(name)
    return called


def check_ladder(runtime: Runtime) -> set[str]:
    """Every rung of conv2d/ladder that the device can climb, as `check_kernels`; their names."""
    definition, checked = kernels.on("definition"), set()
    for rung in ladder(GPU):
        if not has_precision(runtime, rung.precision):
            continue
        for _, (x, w, rows, cols), options in convolutions(np.random.default_rng(0)):
            prepared = rung.prepare(Problem(x, w, rows, cols, **options), runtime)
            prepared.run()
            true = definition.conv2d(x, w, rows, cols, **options)
            _require_near(f"{rung.name} on {x.shape}", prepared.result(), true, allowed(rung.precision))
        checked.add(rung.name)
    return checked


def check_networks(precision: str) -> None:
    """Plans of whole networks, twice: first as they are made, then from what was kept. ResnetRefError as above."""
    images = _normal(np.random.default_rng(1), 3, *SIZE, 3)
    with tempfile.TemporaryDirectory() as folder:
        for number, network in enumerate(NETWORKS):
            path, described = Path(folder, f"{number}.h5"), Network.from_json(network)
            save_weights(path, random_variables(described.variables()), described)
            logits = f"{described.scope}/logits"
            true = load_model(path, device="definition", precision="float64")(images, end_points=[logits])[1][logits]
            model = load_model(path, device="gpu", precision=precision)
            for _ in range(2):
                ours = model(images, end_points=[logits])[1][logits]
                _require_near(f"network {number} in {precision}", ours, true, allowed(precision))


def _require_near(what: str, ours: Any, true: Any, bound: float) -> None:
    largest = float(np.abs(true).max())
    error = float(np.abs(np.subtract(ours, true, dtype=np.float64)).max()) if ours.shape == true.shape else math.inf
    if not error <= bound * largest:
        raise ResnetRefError(f"{what}: the largest error is {error:.3g}, allowed is {bound * largest:.3g}")


def _all(result: Any) -> Sequence[Any]:
    return result if isinstance(result, tuple) else (result,)


def _normal(rng: np.random.Generator, *shape: int) -> Any:
    return rng.standard_normal(shape, np.float32)


def check_roofs(runtime: Runtime) -> None:
    """The kernels that find out what the device does at most; DeviceError where they are wrong."""
    fma_peak(runtime, rounds=2, repeats=1)
    copy_peak(runtime, elements=4100, repeats=1)


def checks(runtime: Runtime) -> Iterator[tuple[str, Callable[[], object]]]:
    """All there is to check on a device, by name."""
    yield "others", partial(check_kernels, "float32", others)
    for precision in PRECISIONS_OF["gpu"]:
        there = has_precision(runtime, precision)
        yield f"convolutions_{precision}", partial(check_kernels, precision, convolutions) if there else _nothing
        yield f"networks_{precision}", partial(check_networks, precision) if there else _nothing
    yield "ladder", partial(check_ladder, runtime)
    yield "roofs", partial(check_roofs, runtime)


def _nothing() -> None:
    """The device has no tensor cores."""


def main(folder: str) -> int:
    # Each array gets memory from the driver for itself alone, so that the sanitizer knows where it ends.
    cupy().cuda.set_allocator(None)
    runtime = kernels.on("gpu").runtime
    assert runtime is not None
    pieces = Pieces(folder, "kernels")
    for name, check in checks(runtime):
        pieces.keep(name, partial(_checked, check))
    print("every kernel ran and is right" if pieces.status == 0 else "NOT every kernel is right")
    return pieces.status


def _checked(check: Callable[[], object]) -> dict[str, Any]:
    called = check()
    return {"ok": True, "kernels": sorted(called) if isinstance(called, set) else []}


if __name__ == "__main__":
    with tempfile.TemporaryDirectory() as nowhere:
        try:
            status = main(sys.argv[1] if len(sys.argv) > 1 else nowhere)
        except ResnetRefError as error:
            sys.exit(f"gpu_kernels_once: {error}")
    sys.exit(status)
