"""The ladder as data: every rung, from the slowest to what production runs."""

from dataclasses import dataclass
from functools import partial
from importlib import import_module
from types import ModuleType, SimpleNamespace
from typing import Any

import numpy as np

from resnet_ref.kernels.arrays import Array
from resnet_ref.kernels.conv2d.ladder.problem import Prepared, Problem
from resnet_ref.kernels.conv2d.tiles import FLOAT32, TF32X3
from resnet_ref.kernels.cuda.runtime import Runtime
from resnet_ref.kernels.tier import Tier
from resnet_ref.kernels.vector.executor import thread_count

CPU, GPU = "cpu", "gpu"


@dataclass(frozen=True)
class Rung:
    """One idea. device: CPU or GPU. file: the module in this package that computes it; its docstring says what changed
    since the rung before, and why that should help. stands_on: the files of kernels/ that it runs beside its own.
    precision: of its products, one of tiles.PRECISIONS."""

    name: str
    device: str
    file: str
    stands_on: tuple[str, ...] = ()
    precision: str = FLOAT32

    @property
    def module(self) -> ModuleType:
        """The module, imported now."""
        return import_module(f"{__package__}.{self.device}.{self.file}")

    def prepare(self, problem: Problem, on: "int | Runtime") -> Prepared:
        """The problem laid out; on: the number of threads, or for rungs in CUDA the device. Nothing is checked: arrays
        that do not fit each other would be read beyond their ends (see `tier`)."""
        if self.device == CPU:
            return self.module.prepare(problem, on)
        return _on_device(self.module, problem, on)  # type: ignore[arg-type]

    def tier(self, on: "int | Runtime" = 1) -> Tier:
        """The rung's conv2d with a tier's signature and checks; on: as in `prepare`, and then the arrays are its."""
        kernels = SimpleNamespace(conv2d=self._conv2d)
        if isinstance(on, int):
            return Tier(CPU, lambda: kernels, (FLOAT32,), threads=thread_count(on))
        return Tier(GPU, lambda: kernels, (FLOAT32,), runtime=on)

    def _conv2d(
        self,
        *given: Any,
        out: Array | None,
        threads: int = 1,
        runtime: Runtime | None = None,
        **epilogue: Any,
    ) -> Array:
        problem = Problem(*given, **epilogue)
        if runtime is not None:
            y = runtime.empty(problem.shape, np.float32) if out is None else out
            self.module.convolve(problem, y, runtime)
            return y
        y = np.empty(problem.shape, np.float32) if out is None else out
        if y.size:
            prepared = self.prepare(problem, threads)
            prepared.run()
            y[...] = prepared.result()
        return y


RUNGS = (
    Rung("loops", CPU, "loops"),
    Rung("im2col + GEMM", CPU, "im2col_gemm", ("conv2d/cpu.py",)),
    Rung("blocked im2col", CPU, "blocked_im2col", ("conv2d/cpu.py",)),
    Rung("indirect", CPU, "indirect"),
    Rung(
        "register tile",
        CPU,
        "register_tile",
        ("vector/tile.py", "conv2d/multiply.py", "conv2d/products.py", "conv2d/direct_planned.py"),
    ),
    Rung("fused epilogue", CPU, "fused_epilogue", ("vector/tile.py", "conv2d/direct_planned.py")),
    Rung(
        "Winograd",
        CPU,
        "winograd",
        ("conv2d/winograd.py", "conv2d/winograd_matrices.py", "conv2d/winograd_planned.py", "conv2d/choice.py"),
    ),
    Rung("one thread per output", GPU, "one_thread"),
    Rung("coalesced", GPU, "coalesced"),
    Rung("shared tiles", GPU, "shared_tiles", ("conv2d/im2col.cu",)),
    Rung("register tiles", GPU, "register_tiles", ("conv2d/im2col.cu",)),
    Rung("implicit GEMM", GPU, "implicit_gemm", ("conv2d/gpu.cu", "conv2d/gather.cuh", "conv2d/epilogue.cuh")),
    Rung("tensor cores", GPU, "tensor_cores", ("conv2d/tensor_cores.cu", "cuda/tensor_core.cuh"), TF32X3),
)


def ladder(device: str) -> tuple[Rung, ...]:
    """The rungs of CPU or GPU, in order."""
    return tuple(rung for rung in RUNGS if rung.device == device)


def _on_device(module: ModuleType, problem: Problem, runtime: Runtime) -> Prepared:
    given = problem._asdict().items()
    there: dict[str, Any] = {name: runtime.upload(value) for name, value in given if isinstance(value, np.ndarray)}
    y = runtime.empty(problem.shape, np.float32)
    return Prepared(partial(module.convolve, problem._replace(**there), y, runtime), partial(runtime.download, y))
