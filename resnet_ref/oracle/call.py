"""slim's functions called as plain data says: the same `Network` and `ArgScope` that our own interpreters take."""

import contextlib
from collections.abc import Iterator
from typing import Any

from resnet_ref.arg_scope import ArgScope
from resnet_ref.network import Network
from resnet_ref.oracle.nets import Nets
from resnet_ref.oracle.run import Build


@contextlib.contextmanager
def scoped(nets: Nets, scope: ArgScope) -> Iterator[None]:
    """slim's arg scopes that `scope` stands for; without the regularisers, which change no output."""
    activation = nets.tf.nn.relu6 if scope.activation_fn == "relu6" else scope.activation_fn
    defaults = nets.resnet_arg_scope(
        weight_decay=0.0,
        batch_norm_decay=scope.batch_norm_decay,
        batch_norm_epsilon=scope.batch_norm_epsilon,
        batch_norm_scale=scope.batch_norm_scale,
        activation_fn=activation,
        use_batch_norm=scope.use_batch_norm,
    )
    bounded = {"use_bounded_activations": scope.use_bounded_activations}
    with (
        nets.slim.arg_scope(defaults),
        nets.slim.arg_scope([nets.slim.batch_norm], is_training=scope.is_training),
        nets.slim.arg_scope([nets.bottleneck], **bounded),
        nets.slim.arg_scope([nets.pool1], padding=scope.max_pool2d_padding),
    ):
        yield


def calling(network: Network, is_training: bool = False) -> Build:
    """What `oracle.run` takes, to build `network` with slim."""

    def build(nets: Nets, inputs: Any) -> Any:
        arguments = {**network.arguments, "is_training": is_training}
        if network.function == "resnet_v1":
            arguments["blocks"] = [nets.Block(b.scope, nets.bottleneck, list(b.args)) for b in network.blocks]
        with scoped(nets, network.arg_scope):
            return getattr(nets, network.function)(inputs, **arguments)

    return build
