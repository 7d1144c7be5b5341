"""What can be asked of each device, and the planner that serves it."""

from collections.abc import Mapping
from typing import Any

from resnet_ref.errors import DeviceError
from resnet_ref.kernels import Tier
from resnet_ref.kernels.arrays import Array
from resnet_ref.kernels.conv2d.choice import BF16, SIZES, Way, instruction_set
from resnet_ref.kernels.conv2d.tiles import PRECISIONS as GPU_PRECISIONS
from resnet_ref.plan.gpu.choice import ALGORITHMS as GPU_ALGORITHMS
from resnet_ref.plan.gpu.planner import GpuPlanner
from resnet_ref.plan.plan import Describe
from resnet_ref.plan.planner import Planner

PRECISIONS_OF = {"definition": ("float32", "float64"), "cpu": ("float32", *BF16), "gpu": GPU_PRECISIONS}
PRECISIONS = tuple(dict.fromkeys(precision for known in PRECISIONS_OF.values() for precision in known))
ALGORITHMS_OF = {"definition": ("auto",), "cpu": tuple(SIZES), "gpu": GPU_ALGORITHMS}


def check_options(tier: Tier, precision: Any, algorithm: Any, isa: Any) -> None:
    """DeviceError for what the tier's device does not have; an instruction set is looked for in `planner_for`."""
    if not isinstance(precision, str) or precision not in PRECISIONS:
        raise DeviceError(f"precision must be one of {', '.join(PRECISIONS)}; got {precision!r}")
    if precision not in (known := PRECISIONS_OF[tier.device]):
        having = [f'device="{name}"' for name, precisions in PRECISIONS_OF.items() if precision in precisions]
        raise DeviceError(
            f"device {tier.device!r} computes in {', '.join(known)}, not in {precision!r}; "
            f"{' or '.join(having)} computes in {precision} too"
        )
    if algorithm not in (algorithms := ALGORITHMS_OF[tier.device]):
        what = f"got {algorithm!r} on device {tier.device!r}"
        raise DeviceError(f"algorithm must be one of {', '.join(algorithms)}; {what}")
    if isa is not None and tier.device != "cpu":
        raise DeviceError(f'isa is for device "cpu"; leave out isa={isa!r} on {tier.device!r}')


def planner_for(
    tier: Tier, describe: Describe, weights: Mapping[str, Array], precision: str, algorithm: str, isa: str | None
) -> Planner | GpuPlanner | None:
    """A planner for a network on the tier's device; None for the definition, which makes no plans.

    The options are checked ones. DeviceError for an instruction set that is not here, or weights too large for a gpu.
    """
    if tier.runtime is not None:
        return GpuPlanner(describe, weights, tier.runtime, precision, algorithm)
    if tier.device == "definition":
        return None
    way = Way(algorithm, precision if precision in BF16 else None)
    return Planner(describe, weights, instruction_set(way, isa), tier.threads, way)
