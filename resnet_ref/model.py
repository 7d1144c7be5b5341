"""load_model: a weights file as something to call with images."""

import os
import warnings
from collections.abc import Iterable, Iterator, Mapping, MutableMapping, Sequence
from difflib import get_close_matches
from functools import lru_cache
from typing import Any, overload

import numpy as np

from resnet_ref import kernels
from resnet_ref.eager import Eager
from resnet_ref.errors import DeviceError, ShapeError
from resnet_ref.handle import Handle
from resnet_ref.inputs import as_images
from resnet_ref.kernels import Tier
from resnet_ref.kernels.arrays import Array
from resnet_ref.kernels.scalars import positive
from resnet_ref.plan.gpu.plan import GpuPlan
from resnet_ref.plan.gpu.planner import GpuPlanner
from resnet_ref.plan.offer import check_options, planner_for
from resnet_ref.plan.plan import RESULT, Plan
from resnet_ref.plan.planner import Planner, most_images
from resnet_ref.shapes import Shapes, Spec
from resnet_ref.weights_file import Weights, load_weights


class Model:
    """A network with its weights on a device; made by `load_model`. Always in inference mode.

    Calls from several threads are safe and give the numbers that one thread gives. precision: what runs (see
    `load_model`).
    """

    def __init__(
        self,
        weights: Weights,
        tier: Tier,
        precision: str,
        planner: Planner | GpuPlanner | None = None,
    ) -> None:
        self.network = weights.network
        self.labels = weights.labels
        self.preprocessing = weights.preprocessing
        self.weights = weights
        self.tier = tier
        self.precision = precision
        self.dtype = np.dtype("float64" if precision == "float64" else "float32")
        self._planner = planner
        self._described = lru_cache(maxsize=64)(self._describe)  # by the images' shape
        self._arrays: Mapping[str, Array] = {name: np.asarray(array, self.dtype) for name, array in weights.items()}

    def __repr__(self) -> str:
        what = f"{self.network.function} {self.network.scope} on {self.tier.device} in {self.precision}"
        return f"<{what} from {self.weights.path}>"

    @overload
    def __call__(self, images: Any, end_points: None = None) -> Array: ...
    @overload
    def __call__(self, images: Any, end_points: Sequence[str]) -> tuple[Array, dict[str, Array]]: ...
    def __call__(self, images: Any, end_points: Sequence[str] | None = None) -> Array | tuple[Array, dict[str, Array]]:
        """Probabilities [N, num_classes] for images [N, H, W, C], preprocessed as the weights file says.

        Arrays come back where they came from: in NumPy, or in CuPy for a gpu's images (see `as_images`).
        A network without logits returns its features [N, h, w, depth]; without spatial_squeeze, or without
        global_pool, probabilities keep their height and width. With end_points=[names], also {name: array} of those.
        ShapeError for images that do not fit, or names that the network does not have.
        """
        wanted = _names(end_points)
        images = self._checked(images, wanted)
        outputs = self._eager(images, wanted) if self._planner is None else self._planner(images, [RESULT, *wanted])
        return _chosen(outputs, wanted, end_points)

    def map(self, batches: Iterable[Any], end_points: Sequence[str] | None = None) -> Iterator[Any]:
        """What a call gives for each of the host's batches [N, H, W, C], in order.

        On a gpu copies run beside the arithmetic of the batches before and after, so that the next batch is asked for
        before the result of an earlier one is there.
        """
        wanted = _names(end_points)
        if not isinstance(self._planner, GpuPlanner):
            for images in batches:
                yield self(images, None if end_points is None else wanted)
            return
        checked = (self._checked(images, wanted) for images in batches)
        for outputs in self._planner.stream(checked, [RESULT, *wanted]):
            yield _chosen(outputs, wanted, end_points)

    def _checked(self, images: Any, wanted: Sequence[str]) -> Array:
        """The images as an array, once the network is known to take such ones, and to have the end points `wanted`."""
        array = as_images(images, self.tier, self.dtype)
        if array.shape[3] != self.network.channels:
            raise ShapeError(
                f"{self.network.scope}: images must be [N, H, W, {self.network.channels}], got {list(array.shape)}"
            )
        if isinstance(array, np.ndarray):
            self._check_range(array)
        self._require(wanted, array.shape)
        return array

    def _eager(self, images: Array, wanted: Sequence[str]) -> Mapping[str, Array]:
        """Layer by layer."""
        kept = _Kept({*wanted, "predictions"})
        eager = Eager(self.tier, self._arrays, self.dtype)
        net, _ = self.network.describe(Handle(eager, images, end_points=kept))
        return {RESULT: kept.get("predictions", net.value), **{name: kept[name] for name in wanted}}

    def plan(self, batch: int, height: int, width: int) -> "Plan | GpuPlan":
        """How images of this shape are computed (see plan/report.py), or as many of them as go through a plan at once.

        DeviceError on devices that make no plans.
        """
        if self._planner is None:
            raise DeviceError(f'device {self.tier.device!r} computes layer by layer; only "cpu" and "gpu" make plans')
        size = positive("height", height), positive("width", width)
        shape = (min(positive("batch", batch), most_images(*size)), *size, self.network.channels)
        self._described(shape)  # errors of shape come first
        return self._planner.plan(shape, [RESULT])

    def end_points(self, height: int, width: int) -> dict[str, tuple[int, ...]]:
        """The names and shapes of the end points for one image [height, width], in slim's order."""
        return dict(self._described((1, positive("height", height), positive("width", width), self.network.channels)))

    def _describe(self, shape: tuple[int, ...]) -> dict[str, tuple[int, ...]]:
        _, specs = self.network.describe(Handle(Shapes(), Spec(shape)))
        return {name: spec.shape for name, spec in specs.items()}

    def _require(self, wanted: Sequence[str], shape: tuple[int, ...]) -> None:
        """ShapeError where the network does not take images of this shape, or lacks an end point."""
        known = self._described(shape)
        for name in wanted:
            if name not in known:
                near = get_close_matches(str(name), known, 3, 0.4)
                outside = ", ".join(known_name for known_name in known if "/unit_" not in known_name)
                some = f"the nearest are {', '.join(near)}" if near else f"outside its units it has {outside}"
                raise ShapeError(f"{self.network.scope} has no end point {name!r}; {some}")

    def _check_range(self, images: Array) -> None:
        if self.preprocessing is not None and images.size and images.min() >= 0 and 0 < images.max() <= 1:
            warnings.warn(
                "these images lie in [0, 1]; slim's networks take pixels of 0..255 less the channels' means "
                "(model.preprocessing does that)",
                stacklevel=4,
            )


def _names(end_points: Any) -> list[str]:
    if isinstance(end_points, str) or not isinstance(end_points, Iterable | None):
        raise ShapeError(f"end_points must be a list of names; write end_points=[{end_points!r}]")
    return list(end_points or ())


def _chosen(outputs: Mapping[str, Array], wanted: Sequence[str], end_points: Any) -> Any:
    """What a call returns: end points too, where some were asked for, even none of them."""
    result = outputs[RESULT]
    return result if end_points is None else (result, {name: outputs[name] for name in wanted})


class _Kept(MutableMapping[str, Array]):
    """A sink for end points that holds on to some of them only."""

    def __init__(self, names: set[str]) -> None:
        self._names = names
        self._held: dict[str, Array] = {}

    def __setitem__(self, name: str, value: Array) -> None:
        if name in self._names:
            self._held[name] = value

    def __getitem__(self, name: str) -> Array:
        return self._held[name]

    def __delitem__(self, name: str) -> None:
        del self._held[name]

    def __iter__(self) -> Iterator[str]:
        return iter(self._held)

    def __len__(self) -> int:
        return len(self._held)


def load_model(
    path: str | os.PathLike[str] | Weights | None = None,
    device: str = "auto",
    precision: str = "float32",
    algorithm: str = "auto",
    isa: str | None = None,
    threads: int | None = None,
) -> Model:
    """A weights file, or what `load_weights` made of one, ready for images; without one, the shipped digits network.

    device: "definition" (NumPy), "cpu", "gpu" ("gpu:1": the second), or "auto": the gpu where there is one that has
    room for the network, else the cpu, and a line of the log says why. precision: "float32", which holds accuracy.py's
    rule at every end point, or "float64" on the definition. On a gpu's tensor cores also "tf32x3" (three products of
    tf32 for each of float32, as exact), "tf32" (11 bits) or "bfloat16" (8); on a cpu with AMX "bf16x6" (six products of
    bf16, as exact), "bf16x3" (17 bits) or "bfloat16" (8).

    algorithm: "auto", or "tuned", like it but chosen by timing, at the first call for each shape, and remembered, so
    that last digits may differ between machines. For the cpu alone: "direct", without Winograd's; "fast", with F(4x4),
    which errs more (within 5 times the rule). isa: the instruction set to use ("avx512", "avx2", "neon", "plain");
    None: the fastest here. threads: None: as many as this process may run on.

    WeightsError for a file that is not what it should be, DeviceError for what this version or machine does not have.
    """
    tier = kernels.on(device, threads, load=False)
    options = precision, algorithm, isa
    check_options(tier, *options)
    weights = path if isinstance(path, Weights) else load_weights(path)
    try:
        return Model(weights, tier, precision, planner_for(tier, weights.network.describe, weights, *options))
    except DeviceError as error:
        if device != "auto" or tier.device != "gpu":
            raise
        kernels.say_cpu(error)
    tier = kernels.on("cpu", threads, load=False)
    check_options(tier, *options)
    return Model(weights, tier, precision, planner_for(tier, weights.network.describe, weights, *options))
