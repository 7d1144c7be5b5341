"""The networks that are compared with slim, each as a call of slim's function and of ours."""

from dataclasses import dataclass, field
from typing import Any

import numpy as np
from numpy.typing import NDArray

from resnet_ref import oracle, resnet_v1
from resnet_ref.arg_scope import ArgScope
from resnet_ref.handle import Handle
from resnet_ref.shapes import Shapes, Spec

SMALL = {"depth_multiplier": 0.125, "num_classes": 11}
TINY_BLOCKS = [("block1", 3, 2, 2), ("block2", 5, 3, 3), ("block3", 7, 2, 2), ("block4", 9, 2, 1)]


@dataclass
class Case:
    """A call of slim's function, the images' shape, and the arg scope around it."""

    function: str
    shape: tuple[int, ...]
    arguments: dict[str, Any] = field(default_factory=dict)
    scope: dict[str, Any] = field(default_factory=dict)
    bounded_scope: bool = False
    bounded_blocks: bool = False
    is_training: bool | None = False
    full_width: bool = False

    @property
    def images(self) -> NDArray[np.float32]:
        """Images of the case's shape; pixels less their means are about this large."""
        return np.random.default_rng(sum(self.shape)).normal(0, 60, self.shape).astype(np.float32)

    @property
    def arg_scope(self) -> ArgScope:
        return resnet_v1.resnet_arg_scope(**self.scope, use_bounded_activations=self.bounded_scope)

    @property
    def trains(self) -> bool:
        """Whether batch norm is in training mode."""
        return self.scope.get("is_training", True) if self.is_training is None else self.is_training

    def _call(self, nets: Any, inputs: Any, **extra: Any) -> Any:
        arguments = dict(self.arguments)
        if self.function == "resnet_v1":
            blocks = [nets.resnet_v1_block(*block) for block in TINY_BLOCKS]
            if self.bounded_blocks:
                bounded = {"use_bounded_activations": True}
                blocks = [block._replace(args=[{**unit, **bounded} for unit in block.args]) for block in blocks]
            arguments["blocks"] = blocks
        return getattr(nets, self.function)(inputs, is_training=self.is_training, **arguments, **extra)

    def describe(self, handle: Handle) -> Any:
        """(net, end_points) as our interpreters build them."""
        return self._call(resnet_v1, handle, arg_scope=self.arg_scope)

    def shapes(self) -> Shapes:
        """The network's layers and variables."""
        shapes = Shapes()
        self.describe(Handle(shapes, Spec(self.shape)))
        return shapes

    def slim(self, nets: oracle.Nets, inputs: Any) -> Any:
        with oracle.scoped(nets, self.arg_scope):
            return self._call(nets, inputs)

    def ours(self, images: Any, weights: Any, updates: Any = None, **where: Any) -> Any:
        extra = {"weights": weights, "arg_scope": self.arg_scope, "batch_norm_updates": updates}
        return self._call(resnet_v1, images, **extra, **where)


CASES = {
    "50 at 224, full width": Case("resnet_v1_50", (1, 224, 224, 3), {"num_classes": 1000}, full_width=True),
    "50 at an odd, non-square size, full width": Case(
        "resnet_v1_50", (1, 225, 258, 3), {"num_classes": 7}, full_width=True
    ),
    "101": Case("resnet_v1_101", (2, 65, 50, 3), SMALL),
    "152": Case("resnet_v1_152", (1, 49, 66, 3), SMALL),
    "200": Case("resnet_v1_200", (1, 50, 51, 3), SMALL),
    "output_stride 4": Case("resnet_v1_50", (1, 61, 46, 3), {**SMALL, "output_stride": 4}),
    "output_stride 8": Case("resnet_v1_50", (2, 62, 45, 3), {**SMALL, "output_stride": 8}),
    "output_stride 16": Case("resnet_v1_101", (1, 81, 64, 3), {**SMALL, "output_stride": 16}),
    "output_stride 32": Case("resnet_v1_50", (1, 81, 64, 3), {**SMALL, "output_stride": 32}),
    "dense: no pooling, no squeeze": Case(
        "resnet_v1_50", (2, 65, 97, 3), {**SMALL, "global_pool": False, "spatial_squeeze": False, "output_stride": 8}
    ),
    "no squeeze": Case("resnet_v1_50", (2, 33, 40, 3), {**SMALL, "spatial_squeeze": False}),
    "features of no classes": Case("resnet_v1_50", (2, 33, 40, 3), {"depth_multiplier": 0.25, "num_classes": 0}),
    "features without pooling": Case("resnet_v1_50", (1, 47, 40, 3), {"depth_multiplier": 0.125, "global_pool": False}),
    "store_non_strided_activations": Case(
        "resnet_v1_50", (1, 57, 70, 3), {**SMALL, "store_non_strided_activations": True}
    ),
    "store_non_strided_activations, output_stride 8": Case(
        "resnet_v1_152", (1, 57, 40, 3), {**SMALL, "store_non_strided_activations": True, "output_stride": 8}
    ),
    "min_base_depth with multiplier 0": Case(
        "resnet_v1_50", (1, 41, 52, 3), {"num_classes": 5, "min_base_depth": 5, "depth_multiplier": 0}
    ),
    "width .3": Case("resnet_v1_50", (1, 41, 52, 3), {"num_classes": 5, "depth_multiplier": 0.3, "scope": "other"}),
    "one pixel": Case("resnet_v1_50", (2, 1, 1, 3), SMALL),
    "training": Case("resnet_v1_50", (3, 97, 130, 3), SMALL, is_training=True),
    "training, without gamma, other decay": Case(
        "resnet_v1",
        (3, 97, 98, 3),
        {"num_classes": 5},
        {"batch_norm_scale": False, "batch_norm_decay": 0.9},
        is_training=True,
    ),
    "is_training None in a training scope": Case("resnet_v1_50", (4, 97, 98, 3), SMALL, is_training=None),
    "is_training None in an inference scope": Case(
        "resnet_v1_50", (2, 65, 50, 3), SMALL, {"is_training": False}, is_training=None
    ),
    "epsilon 1e-2, no gamma": Case(
        "resnet_v1_50", (1, 65, 50, 3), SMALL, {"batch_norm_epsilon": 1e-2, "batch_norm_scale": False}
    ),
    "biases instead of batch norm": Case("resnet_v1_50", (1, 65, 50, 3), SMALL, {"use_batch_norm": False}),
    "relu6 as the activation": Case("resnet_v1_50", (1, 65, 50, 3), SMALL, {"activation_fn": "relu6"}),
    "no activation": Case("resnet_v1_50", (1, 65, 50, 3), SMALL, {"activation_fn": None}),
    "pool1 as Keras and PyTorch pad it": Case("resnet_v1_50", (2, 64, 50, 3), SMALL, {"max_pool2d_padding": "FIXED"}),
    "pool1 without padding": Case("resnet_v1_50", (2, 65, 50, 3), SMALL, {"max_pool2d_padding": "VALID"}),
    "bounded activations by the arg scope": Case("resnet_v1_50", (1, 65, 50, 3), SMALL, bounded_scope=True),
    "bounded activations by the blocks": Case("resnet_v1", (2, 65, 50, 3), {"num_classes": 5}, bounded_blocks=True),
    "own blocks, stride 3": Case("resnet_v1", (2, 85, 62, 3), {"num_classes": 5, "scope": "tiny"}),
    "own blocks, output_stride 24": Case("resnet_v1", (2, 85, 62, 3), {"num_classes": 5, "output_stride": 24}),
    "no root block": Case("resnet_v1", (2, 37, 26, 5), {"num_classes": 5, "include_root_block": False}),
    "no root block, output_stride 6": Case(
        "resnet_v1", (2, 37, 26, 5), {"global_pool": False, "include_root_block": False, "output_stride": 6}
    ),
}

# Narrow, so that a recording of all their end points stays below a megabyte.
RECORDED = {
    "networks_inference.npz": Case(
        "resnet_v1_50",
        (1, 37, 50, 3),
        {"num_classes": 5, "depth_multiplier": 0, "min_base_depth": 3, "output_stride": 8},
    ),
    "networks_training.npz": Case("resnet_v1", (3, 97, 98, 3), {"num_classes": 5}, is_training=True),
    "networks_bounded.npz": Case(
        "resnet_v1",
        (2, 41, 30, 3),
        {"num_classes": 5, "store_non_strided_activations": True, "scope": "tiny"},
        {"batch_norm_epsilon": 1e-3},
        bounded_blocks=True,
    ),
}
