"""Plans on a gpu as tests run them: the tiny network, and runtimes that stand for a device."""

from typing import Any

import numpy as np
from accuracy import error
from conftest import TINY
from cuda_on_cpu.runtime import EmulatedRuntime
from planned import Array

from resnet_ref import resnet_v1
from resnet_ref.handle import Handle
from resnet_ref.kernels.cuda.cupy_runtime import cupy_runtime
from resnet_ref.network import Network
from resnet_ref.plan.gpu.choice import by_model
from resnet_ref.plan.gpu.lowering import Lowering
from resnet_ref.plan.gpu.planner import GpuPlanner
from resnet_ref.plan.gpu.weights import DeviceWeights
from resnet_ref.plan.plan import RESULT
from resnet_ref.shapes import Shapes, Spec

Weights = dict[str, Any]
RNG = np.random.default_rng(3)
IMAGES = (RNG.standard_normal((5, 29, 26, 3)) * 60).astype(np.float32)
NETWORK = Network.from_json(TINY)
END_POINTS = list(NETWORK.describe(Handle(Shapes(), Spec(IMAGES.shape)))[1])
NEAR = 2e-6


class CountingRuntime(EmulatedRuntime):
    """Notes captures and the allocations of each; launches that no graph makes."""

    def __init__(self, **options: Any) -> None:
        super().__init__(check=False, **options)
        self.captures = self.launches = self.allocations = 0

    def capture(self, run: Any) -> Any:
        self.captures += 1
        before = self.launches, self.allocations
        graph = super().capture(run)
        self.launches = before[0]
        assert self.allocations == before[1]
        return graph

    def launch(self, launch: Any) -> None:
        self.launches += 1
        super().launch(launch)

    def empty(self, shape: tuple[int, ...], dtype: Any) -> Any:
        self.allocations += 1
        return super().empty(shape, dtype)


def runtime_named(tier: str) -> Any:
    """A device, or what stands for one, by its name in GPU_TIERS."""
    return cupy_runtime(0) if tier == "gpu" else EmulatedRuntime(check=False)


def planner_for(weights: Weights, runtime: Any, algorithm: str = "auto") -> GpuPlanner:
    return GpuPlanner(NETWORK.describe, weights, runtime, "float32", algorithm)


def images_of(*shape: int, seed: int = 0) -> Array:
    return np.random.default_rng([seed, *shape]).normal(0, 60, (*shape, 3)).astype(np.float32)


def definition(images: Array, weights: Weights) -> dict[str, Array]:
    """All outputs of the tiny network in float64."""
    where = {"device": "definition", "dtype": "float64"}
    ends = resnet_v1.resnet_v1(images, NETWORK.blocks, 5, False, scope="tiny", weights=weights, **where)[1]
    return {**ends, RESULT: ends["predictions"]}


def assert_near(found: dict[str, Array], images: Array, weights: Weights) -> None:
    truth = definition(images, weights)
    for name, value in found.items():
        assert value.shape == truth[name].shape
        assert value.dtype == np.float32
        assert error(value, truth[name]) <= NEAR, name


def lowered(weights: Weights, names: list[str], runtime: Any, shape: tuple[int, ...] = IMAGES.shape) -> Lowering:
    return Lowering(NETWORK.describe, DeviceWeights(runtime, weights), shape, names, by_model(runtime, "float32"))


def bytes_for(weights: Weights, images: int, names: list[str]) -> int:
    return lowered(weights, names, EmulatedRuntime(check=False), (images, *IMAGES.shape[1:])).nbytes
