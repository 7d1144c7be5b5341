"""A plan's way to compute a convolution, as a program of its own."""

import numpy as np

from resnet_ref.kernels.arrays import Array
from resnet_ref.kernels.conv2d.choice import reads_dense
from resnet_ref.kernels.conv2d.convolution import Convolution, Method
from resnet_ref.kernels.conv2d.ladder.problem import Problem
from resnet_ref.kernels.library import library
from resnet_ref.kernels.vector.executor import thread_count
from resnet_ref.kernels.vector.isa import isa_named
from resnet_ref.kernels.vector.prepared import Program
from resnet_ref.kernels.vector.step import Map, Target, new_map


class Alone:
    """One convolution by `method`, on this machine's fastest instruction set; x and the residual are in its memory."""

    def __init__(self, problem: Problem, method: Method, threads: int) -> None:
        # As a plan has it: threads that wait for each other want a core each.
        target = Target(library(isa_named(None)), min(threads, thread_count(None)))
        lanes = target.library.isa.lanes
        dense = reads_dense(problem.rows, problem.cols, problem.x.shape[3], lanes)
        x, self._y = _map(problem.x.shape, 1 if dense else lanes), _map(problem.shape, lanes)
        shortcut = None if problem.residual is None else _map(problem.residual.shape, lanes)
        bias = np.zeros(problem.shape[3], np.float32) if problem.bias is None else problem.bias
        epilogue = (problem.activation, shortcut, problem.residual_stride)
        conv = Convolution("conv2d", x, self._y, problem.rows, problem.cols, lambda: (problem.w, bias), *epilogue)
        inputs = [(x, problem.x)] + ([] if shortcut is None else [(shortcut, problem.residual)])
        kept = [*(given for given, _ in inputs), self._y]
        self.program = Program(target, method(target, conv), kept, max(given.pitch for given in kept))
        for given, array in inputs:
            self.program.view(given)[...] = array

    def result(self) -> Array:
        """[N, OH, OW, F], a copy."""
        return self.program.view(self._y).copy()

    @property
    def pixels(self) -> Array:
        """y as it lies in memory: [N*OH*OW, F and what a pixel has beyond]."""
        whole = Map(self._y.n, self._y.h, self._y.w, self._y.pitch, self._y.pitch, self._y.buffer)
        return self.program.view(whole).reshape(-1, self._y.pitch)


def _map(shape: tuple[int, ...], lanes: int) -> Map:
    n, h, w, c = shape
    return new_map(n, h, w, c, lanes)
