"""slim's ResNet v1, composed from tf_slim's layers: the pip package tf_slim holds an older one than the TensorFlow
models repository, without its newer parameters and end points."""

import contextlib
import functools
from collections.abc import Iterator
from typing import Any

from resnet_ref.oracle.environment import quiet, tensorflow

_OWN_NAME = ""  # the variant's own; scope=None is slim's resnet_v1


class Nets:
    """slim's ResNet v1 under slim's names and signatures, to be called inside a `tf.Graph`.

    As in slim, a network wants `with nets.slim.arg_scope(nets.resnet_arg_scope()):` around it. `tf` and `slim` are the
    modules tensorflow and tf_slim. `Block`, `conv2d_same`, `subsample` are tf_slim's own, the rest is composed here.
    Source: research/slim/nets/resnet_v1.py and resnet_utils.py.
    """

    def __init__(self) -> None:
        self.tf, self.slim = tensorflow()
        utils = self.slim.nets.resnet_utils
        self.Block, self.conv2d_same, self.subsample = utils.Block, utils.conv2d_same, utils.subsample
        self.bottleneck = self.slim.add_arg_scope(self._bottleneck)
        self.stack_blocks_dense = self.slim.add_arg_scope(self._stack_blocks_dense)
        self.pool1 = self.slim.add_arg_scope(self._pool1)

    def _bottleneck(
        self,
        inputs: Any,
        depth: int,
        depth_bottleneck: int,
        stride: int,
        rate: int = 1,
        outputs_collections: str | None = None,
        scope: str | None = None,
        use_bounded_activations: bool = False,
    ) -> Any:
        nn, conv2d = self.tf.nn, self.slim.conv2d
        with self.tf.compat.v1.variable_scope(scope, "bottleneck_v1", [inputs]) as unit:
            if depth == inputs.shape[-1]:
                shortcut = self.subsample(inputs, stride, "shortcut")
            else:
                bound = nn.relu6 if use_bounded_activations else None
                shortcut = conv2d(inputs, depth, [1, 1], stride=stride, activation_fn=bound, scope="shortcut")
            residual = conv2d(inputs, depth_bottleneck, [1, 1], stride=1, scope="conv1")
            residual = self.conv2d_same(residual, depth_bottleneck, 3, stride, rate=rate, scope="conv2")
            residual = conv2d(residual, depth, [1, 1], stride=1, activation_fn=None, scope="conv3")
            if use_bounded_activations:
                residual = self.tf.clip_by_value(residual, -6.0, 6.0)
            outputs = (nn.relu6 if use_bounded_activations else nn.relu)(shortcut + residual)
            return self.slim.utils.collect_named_outputs(outputs_collections, unit.name, outputs)

    def _stack_blocks_dense(
        self,
        net: Any,
        blocks: Any,
        output_stride: int | None = None,
        store_non_strided_activations: bool = False,
        outputs_collections: str | None = None,
    ) -> Any:
        variable_scope = self.tf.compat.v1.variable_scope
        current, rate = 1, 1
        for block in blocks:
            with variable_scope(block.scope, "block", [net]) as block_scope:
                strides = [unit["stride"] for unit in block.args]
                late_stride = strides[-1] if store_non_strided_activations else 1
                strides[-1] //= late_stride
                for number, (unit, stride) in enumerate(zip(block.args, strides, strict=True), start=1):
                    dense = current == output_stride
                    how = {"stride": 1, "rate": rate} if dense else {"stride": stride, "rate": 1}
                    with variable_scope(f"unit_{number}", values=[net]):
                        net = block.unit_fn(net, **{**unit, **how})
                    current, rate = (current, rate * stride) if dense else (current * stride, rate)
                net = self.slim.utils.collect_named_outputs(outputs_collections, block_scope.name, net)
                if current == output_stride:
                    rate *= late_stride
                else:
                    net = self.subsample(net, late_stride)
                    current *= late_stride
        if output_stride not in (None, current):
            raise ValueError("The target output_stride cannot be reached.")
        return net

    def resnet_arg_scope(
        self,
        weight_decay: float = 0.0001,
        batch_norm_decay: float = 0.997,
        batch_norm_epsilon: float = 1e-5,
        batch_norm_scale: bool = True,
        activation_fn: Any = "relu",
        use_batch_norm: bool = True,
        batch_norm_updates_collections: str | None = "update_ops",
    ) -> Any:
        """slim's defaults for convolutions, batch norm and pooling; activation_fn="relu" is tf.nn.relu."""
        slim = self.slim
        updates = batch_norm_updates_collections
        if updates == "update_ops":
            # tf_slim compares this name by identity when it chooses how to normalise.
            updates = self.tf.compat.v1.GraphKeys.UPDATE_OPS
        params: dict[str, Any] = {"decay": batch_norm_decay, "epsilon": batch_norm_epsilon, "scale": batch_norm_scale}
        params["updates_collections"] = updates
        conv_scope = slim.arg_scope(
            [slim.conv2d],
            weights_regularizer=slim.l2_regularizer(weight_decay),
            weights_initializer=slim.variance_scaling_initializer(),
            activation_fn=self.tf.nn.relu if activation_fn == "relu" else activation_fn,
            normalizer_fn=slim.batch_norm if use_batch_norm else None,
            normalizer_params=params,
        )
        with (
            conv_scope,
            slim.arg_scope([slim.batch_norm], **params),
            slim.arg_scope([slim.max_pool2d], padding="SAME") as scope,
        ):
            return scope

    def resnet_v1(
        self,
        inputs: Any,
        blocks: Any,
        num_classes: int | None = None,
        is_training: bool | None = True,
        global_pool: bool = True,
        output_stride: int | None = None,
        include_root_block: bool = True,
        spatial_squeeze: bool = True,
        store_non_strided_activations: bool = False,
        reuse: bool | None = None,
        scope: str | None = None,
    ) -> tuple[Any, dict[str, Any]]:
        """Build a ResNet v1 and return (net, end points in order of creation)."""
        slim = self.slim
        if include_root_block and output_stride is not None:
            if output_stride % 4 != 0:
                raise ValueError("The output_stride needs to be a multiple of 4.")
            output_stride //= 4
        # None leaves the mode to the caller's own arg scope.
        mode = {} if is_training is None else {"is_training": is_training}
        with self.tf.compat.v1.variable_scope(scope, "resnet_v1", [inputs], reuse=reuse) as network:
            collection = f"{network.original_name_scope}_end_points"
            collecting = [slim.conv2d, self.bottleneck, self.stack_blocks_dense]
            with slim.arg_scope(collecting, outputs_collections=collection), slim.arg_scope([slim.batch_norm], **mode):
                net = inputs
                if include_root_block:
                    net = self.conv2d_same(net, 64, 7, stride=2, scope="conv1")
                    net = self.pool1(net)
                net = self.stack_blocks_dense(net, blocks, output_stride, store_non_strided_activations)
                end_points = dict(slim.utils.convert_collection_to_dict(collection))
                return self._head(net, end_points, network.name, num_classes, global_pool, spatial_squeeze), end_points

    def _pool1(self, net: Any, padding: str | None = None) -> Any:
        """slim's, padded as slim's arg scope says; or "FIXED", which slim does not know: as other frameworks pad."""
        if padding == "FIXED":
            net = self.tf.pad(net, [[0, 0], [1, 1], [1, 1], [0, 0]], constant_values=-float("inf"))
            padding = "VALID"
        given = {} if padding is None else {"padding": padding}
        return self.slim.max_pool2d(net, [3, 3], stride=2, scope="pool1", **given)

    def _head(
        self,
        net: Any,
        end_points: dict[str, Any],
        scope: str,
        num_classes: int | None,
        global_pool: bool,
        squeeze: bool,
    ) -> Any:
        if global_pool:
            net = end_points["global_pool"] = self.tf.reduce_mean(net, [1, 2], name="pool5", keepdims=True)
        if num_classes:
            plain = {"activation_fn": None, "normalizer_fn": None, "scope": "logits"}
            net = end_points[f"{scope}/logits"] = self.slim.conv2d(net, num_classes, [1, 1], **plain)
            if squeeze:
                net = end_points[f"{scope}/spatial_squeeze"] = self.tf.squeeze(net, [1, 2], name="SpatialSqueeze")
            end_points["predictions"] = self.slim.softmax(net, scope="predictions")
        return net

    def resnet_v1_block(self, scope: str, base_depth: int, num_units: int, stride: int) -> Any:
        """A block of `num_units` bottlenecks, 4 * base_depth deep, the last one strided."""
        sizes = {"depth": base_depth * 4, "depth_bottleneck": base_depth}
        strides = [1] * (num_units - 1) + [stride]
        return self.Block(scope, self.bottleneck, [{**sizes, "stride": unit_stride} for unit_stride in strides])

    def _variant(
        self,
        units: tuple[int, ...],
        name: str,
        inputs: Any,
        num_classes: int | None = None,
        is_training: bool | None = True,
        global_pool: bool = True,
        output_stride: int | None = None,
        spatial_squeeze: bool = True,
        store_non_strided_activations: bool = False,
        min_base_depth: int = 8,
        depth_multiplier: float = 1,
        reuse: bool | None = None,
        scope: str | None = _OWN_NAME,
    ) -> tuple[Any, dict[str, Any]]:
        blocks = self._blocks(units, depth_multiplier, min_base_depth)
        last = (spatial_squeeze, store_non_strided_activations, reuse, name if scope == _OWN_NAME else scope)
        return self.resnet_v1(inputs, blocks, num_classes, is_training, global_pool, output_stride, True, *last)

    def _swapped_variant(
        self,
        units: tuple[int, ...],
        name: str,
        inputs: Any,
        num_classes: int | None = None,
        is_training: bool | None = True,
        global_pool: bool = True,
        output_stride: int | None = None,
        store_non_strided_activations: bool = False,
        spatial_squeeze: bool = True,
        *sizes_and_scope: Any,
        **named: Any,
    ) -> tuple[Any, dict[str, Any]]:
        first = (num_classes, is_training, global_pool, output_stride)
        flags = (spatial_squeeze, store_non_strided_activations)
        return self._variant(units, name, inputs, *first, *flags, *sizes_and_scope, **named)

    # In slim the two deeper variants take store_non_strided_activations before spatial_squeeze.
    resnet_v1_50 = functools.partialmethod(_variant, (3, 4, 6, 3), "resnet_v1_50")
    resnet_v1_101 = functools.partialmethod(_variant, (3, 4, 23, 3), "resnet_v1_101")
    resnet_v1_152 = functools.partialmethod(_swapped_variant, (3, 8, 36, 3), "resnet_v1_152")
    resnet_v1_200 = functools.partialmethod(_swapped_variant, (3, 24, 36, 3), "resnet_v1_200")

    def _blocks(self, units: tuple[int, ...], depth_multiplier: float, min_base_depth: int) -> list[Any]:
        depths = [max(int(depth * depth_multiplier), min_base_depth) for depth in (64, 128, 256, 512)]
        rows = zip(depths, units, (2, 2, 2, 1), strict=True)
        return [self.resnet_v1_block(f"block{number}", *row) for number, row in enumerate(rows, start=1)]


@functools.cache
def slim_nets() -> Nets:
    """The one `Nets` of this process. Raises DeviceError as `tensorflow` does."""
    return Nets()


@contextlib.contextmanager
def graph() -> Iterator[Nets]:
    """A new, quiet `tf.Graph` to build slim's networks in."""
    nets = slim_nets()
    with quiet(), nets.tf.Graph().as_default():
        yield nets
