"""What a plan would do on a CPU with NEON, beside what it does with AVX2: looked at on any machine, not run."""

from collections import Counter, defaultdict
from functools import cache, partial
from typing import Any

import numpy as np
import pytest

from resnet_ref import resnet_v1
from resnet_ref.handle import Handle
from resnet_ref.kernels.conv2d.choice import Way, by_model
from resnet_ref.kernels.vector.emit import float_bits
from resnet_ref.kernels.vector.isa import AVX2, NEON, Isa
from resnet_ref.kernels.vector.objects import Library
from resnet_ref.kernels.vector.step import Target
from resnet_ref.plan.plan import RESULT, Plan
from resnet_ref.shapes import Shapes, Spec

DESCRIBE = partial(resnet_v1.resnet_v1_50, num_classes=1000, is_training=False)
EPILOGUE = ("has_residual", "has_bounds", "low", "high", "bound")


@cache
def steps(isa: Isa, algorithm: str, batch: int, threads: int) -> list[dict[str, Any]]:
    """Of each step of resnet_v1_50's plan at 224 pixels: name, algorithm, tasks, and what of an epilogue it has.

    No function has an address: the instruction set need not be this machine's.
    """
    images = Spec((batch, 224, 224, 3))
    shapes = Shapes()
    DESCRIBE(Handle(shapes, images))
    weights = {name: np.broadcast_to(np.float32(0), shape) for name, shape in shapes.variables.items()}
    target = Target(Library(isa, defaultdict(int)), threads)
    program = Plan(DESCRIBE, weights, target, images.shape, [RESULT], by_model(Way(algorithm))).program
    return [
        {
            "name": step.name,
            "algorithm": step.algorithm,
            "tasks": step.tasks,
            **{n: int(record[step.layout.slot(n)]) for n in EPILOGUE if n in step.layout.names},
        }
        for step, record in zip(program.steps, program._records, strict=True)
    ]


@pytest.mark.parametrize(("algorithm", "threads", "batch"), [("auto", 1, 1), ("fast", 4, 8)])
def test_neon_has_avx2s_algorithms_epilogues_and_tasks_but_for_the_mean(
    algorithm: str, threads: int, batch: int
) -> None:
    """Both tiles are 6 pixels by 16 channels. A task of the mean is a vector of the 2048 channels and one more."""
    assert (NEON.rows, NEON.panel) == (AVX2.rows, AVX2.panel) == (6, 16)
    neon, avx2 = (steps(isa, algorithm, batch, threads) for isa in (NEON, AVX2))
    differing = [(one, other) for one, other in zip(neon, avx2, strict=True) if one != other]
    mean = {"name": "global_pool", "algorithm": "mean"}
    assert differing == [({**mean, "tasks": batch * 2052 // 4}, {**mean, "tasks": batch * 2056 // 8})]


def test_neon_takes_winograd_for_the_3x3_convolutions_of_stride_1_and_fuses_every_epilogue() -> None:
    """slim strides in the last units of three of the four blocks: 13 of the 16 units' 3x3 convolutions have stride 1.

    The 16 residuals are added to sums in registers: no step adds, and none clamps.
    """
    found = steps(NEON, "auto", 1, 1)
    winograd = {step["name"].partition("//")[0] for step in found if step["algorithm"].startswith("F(2x2)")}
    strided = {f"resnet_v1_50/block{unit}/bottleneck_v1/conv2" for unit in ("1/unit_3", "2/unit_4", "3/unit_6")}
    units = {step["name"].rpartition("/")[0] for step in found if step["name"].endswith("/conv3")}
    assert len(units) == 16
    assert winograd == {f"{unit}/conv2" for unit in units} - strided
    assert {step["name"] for step in found if step.get("has_residual")} == {f"{unit}/conv3" for unit in units}
    others = Counter(step["algorithm"] for step in found if not step["algorithm"].startswith(("F(2x2)", "direct")))
    assert others == {"copy": 1, "maximum": 1, "mean": 1, "softmax": 1}
    with_relu = {step["name"] for step in found if step.get("low") == float_bits(0.0)}
    staged = {f"resnet_v1_50/block4/unit_{number}/bottleneck_v1/conv2//output" for number in (1, 2, 3)}
    assert with_relu == (
        {"resnet_v1_50/conv1"} | {f"{unit}/conv{number}" for unit in units for number in (1, 3)} | strided | staged
    )
