"""Prepared kernels and plans as tests run them: a few steps as a program of their own, on arrays."""

import shutil
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray

from resnet_ref import kernels
from resnet_ref.kernels.conv2d.choice import Way, by_model
from resnet_ref.kernels.conv2d.convolution import Convolution, Method
from resnet_ref.kernels.conv2d.direct_planned import direct
from resnet_ref.kernels.conv2d.winograd_planned import can_winograd
from resnet_ref.kernels.geometry import Window
from resnet_ref.kernels.library import library
from resnet_ref.kernels.vector.isa import available, isa_named
from resnet_ref.kernels.vector.prepared import Program
from resnet_ref.kernels.vector.step import Map, Step, Target, new_map
from resnet_ref.plan import remembering
from resnet_ref.plan.plan import Plan

Array = NDArray[Any]
ISAS = [isa.name for isa in available()]


def target_for(isa: str, threads: int = 1) -> Target:
    """What steps are prepared for."""
    return Target(library(isa_named(isa)), threads)


def map_for(target: Target, shape: Sequence[int], dense: bool = False) -> Map:
    """A map [N, H, W, C]; dense: pixels side by side, as few channels may lie."""
    n, h, w, c = shape
    return new_map(n, h, w, c, 1 if dense else target.library.isa.lanes)


def computed(target: Target, steps: Sequence[Step], inputs: Mapping[Map, Array], *outputs: Map) -> list[Array]:
    """What the steps make of the inputs. All other memory is NaN before the run."""
    kept = [*inputs, *outputs]
    program = Program(target, steps, kept, max(m.pitch for m in kept))
    constants = {b: program._floats(b).copy() for b in (program.memory.zeros, program.memory.lowest)}
    program._arena[...] = 0xFF
    for buffer, numbers in constants.items():
        program._floats(buffer)[...] = numbers
    for given, array in inputs.items():
        program.view(given)[...] = array
    program.run()
    for given, array in inputs.items():
        np.testing.assert_array_equal(program.view(given), array)
    return [program.view(made).copy() for made in outputs]


def convolved(
    target: Target,
    method: Method,
    x: Array,
    w: Array,
    rows: Window,
    cols: Window,
    *,
    bias: Array | None = None,
    activation: str | None = None,
    residual: Array | None = None,
    residual_stride: int = 1,
    bound: float | None = None,
    dense: bool = False,
) -> Array:
    """A convolution by `method`."""
    bias = np.zeros(w.shape[3], np.float32) if bias is None else bias
    inputs = {map_for(target, x.shape, dense): x}
    if residual is not None:
        inputs[map_for(target, residual.shape)] = residual
    given, *shortcut = inputs
    y = map_for(target, (x.shape[0], rows.out(x.shape[1]), cols.out(x.shape[2]), w.shape[3]))
    epilogue = (activation, *(shortcut or [None]), residual_stride, bound)
    conv = Convolution("conv", given, y, rows, cols, lambda: (w, bias), *epilogue)
    return computed(target, method(target, conv), inputs, y)[0]


def defined(
    x: Array,
    w: Array,
    rows: Window,
    cols: Window,
    *,
    bias: Array | None = None,
    activation: str | None = None,
    residual: Array | None = None,
    residual_stride: int = 1,
    bound: float | None = None,
    **_: Any,
) -> Array:
    """The same by the definition in float64."""
    tier = kernels.on("definition")
    doubles = [None if a is None else a.astype(np.float64) for a in (x, w, bias, residual)]
    y = tier.conv2d(doubles[0], doubles[1], rows, cols, bias=doubles[2])
    if bound is not None:
        y = np.clip(y, -bound, bound)
    if residual is not None:
        y = y + doubles[3][:, ::residual_stride, ::residual_stride]
    return {None: lambda y: y, "relu": tier.relu, "relu6": tier.relu6}[activation](y)


def whole(rng: np.random.Generator, *shape: int) -> Array:
    """float32 whole numbers from -4 to 4: sums of their products are exact in float32, in any order."""
    return rng.integers(-4, 5, shape).astype(np.float32)


def planned(
    describe: Any,
    weights: Mapping[str, Array],
    images: Array,
    outputs: Sequence[str],
    choose: Method | None = None,
    *,
    algorithm: str = "auto",
    isa: str = ISAS[0],
    threads: int = 1,
) -> dict[str, Array]:
    """A network by a Plan of its own; choose: instead of the algorithm."""
    choose = choose or by_model(Way(algorithm))
    return Plan(describe, weights, target_for(isa, threads), images.shape, outputs, choose)(images)


def use_copied_sources(monkeypatch: pytest.MonkeyPatch, place: Path) -> None:
    """Choices are remembered for copies of the sources, place/kernels and place/plan, which may be edited."""
    copies = [place / "kernels", place / "plan"]
    for source, copy in zip(remembering.SOURCES, copies, strict=True):
        shutil.copytree(source, copy, ignore=shutil.ignore_patterns("__pycache__"))
    monkeypatch.setattr(remembering, "SOURCES", copies)


def forced(method: Method) -> Method:
    """`method` wherever Winograd's algorithms can be, else the direct one."""
    return lambda target, conv: (method if can_winograd(conv) else direct)(target, conv)
