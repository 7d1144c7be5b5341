"""A network as an ONNX file, which onnxruntime and OpenVINO read."""

import math
import os
from collections.abc import Mapping
from typing import Any

import numpy as np
import onnx
from onnx import TensorProto, helper, numpy_helper

from resnet_ref.bench.nchw import Float32, Nchw
from resnet_ref.kernels.arrays import Array
from resnet_ref.kernels.geometry import Window
from resnet_ref.network import Network

# Old enough for every onnxruntime and OpenVINO that the extra `bench` allows.
_OPSET, _IR = 17, 8
BATCH = "batch"  # the name of the one size that is left open


class OnnxGraph(Nchw):
    """Makes ONNX nodes; a value's node is its name."""

    def __init__(self, weights: Mapping[str, Array]) -> None:
        super().__init__(weights)
        self.nodes: list[onnx.NodeProto] = []
        self.constants: dict[str, onnx.TensorProto] = {}

    def convolve(self, x: str, scope: str, weights: Float32, bias: Float32, rows: Window, cols: Window) -> str:
        """Conv."""
        held = [self._constant(f"{scope}/weights", weights), self._constant(f"{scope}/bias", bias)]
        return self._add("Conv", [x, *held], **_geometry(rows, cols), group=1)

    def pool(self, x: str, size: tuple[int, ...], rows: Window, cols: Window) -> str:
        """MaxPool, whose padding never wins."""
        return self._add("MaxPool", [x], **_geometry(rows, cols))

    def mean(self, x: str) -> str:
        """GlobalAveragePool."""
        return self._add("GlobalAveragePool", [x])

    def add(self, a: str, b: str) -> str:
        """Add."""
        return self._add("Add", [a, b])

    def clamp(self, x: str, low: float, high: float) -> str:
        """Relu or Clip."""
        if (low, high) == (0, math.inf):
            return self._add("Relu", [x])
        limits = [self._constant(f"number {number:g}", np.array(number, np.float32)) for number in (low, high)]
        return self._add("Clip", [x, *limits])

    def flatten(self, x: str) -> str:
        """Squeeze."""
        return self._add("Squeeze", [x, self._constant("axes 2 3", np.array([2, 3], np.int64))])

    def normalise(self, x: str) -> str:
        """Softmax."""
        return self._add("Softmax", [x], axis=1)

    def rename(self, name: str, output: str) -> None:
        """Give a value the name that an output of the graph has."""
        self.nodes.append(helper.make_node("Identity", [name], [output]))

    def _add(self, operation: str, inputs: list[str], **attributes: Any) -> str:
        output = f"{operation} {len(self.nodes)}"
        self.nodes.append(helper.make_node(operation, inputs, [output], name=output, **attributes))
        return output

    def _constant(self, name: str, array: Any) -> str:
        self.constants.setdefault(name, numpy_helper.from_array(array, name))
        return name


def write_onnx(
    network: Network, weights: Mapping[str, Array], size: tuple[int, int], path: str | os.PathLike[str]
) -> None:
    """Write the graph for images [N, C, height, width], any N: input `images`, outputs `result` and `logits`."""
    graph = OnnxGraph(weights)
    outputs = graph.outputs(network, (1, *size, network.channels), "images")
    for output, name in outputs.items():
        graph.rename(name, output)
    images = helper.make_tensor_value_info("images", TensorProto.FLOAT, [BATCH, network.channels, *size])
    made = helper.make_graph(
        graph.nodes,
        network.function,
        [images],
        [helper.make_tensor_value_info(output, TensorProto.FLOAT, None) for output in outputs],
        list(graph.constants.values()),
    )
    model = helper.make_model(made, opset_imports=[helper.make_opsetid("", _OPSET)], ir_version=_IR)
    onnx.save(onnx.shape_inference.infer_shapes(model), os.fspath(path))


def _geometry(rows: Window, cols: Window) -> dict[str, list[int]]:
    return {
        "kernel_shape": [rows.size, cols.size],
        "strides": [rows.stride, cols.stride],
        "dilations": [rows.rate, cols.rate],
        "pads": [rows.before, cols.before, rows.after, cols.after],
    }
