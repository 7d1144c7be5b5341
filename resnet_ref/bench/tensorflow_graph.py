"""slim's own graph of a network as a file, which TensorFlow reads: variables as constants, so that it may fold them."""

import os
from collections.abc import Mapping
from pathlib import Path

from resnet_ref import oracle
from resnet_ref.kernels.arrays import Array
from resnet_ref.network import Network


def write_tensorflow(
    network: Network, weights: Mapping[str, Array], size: tuple[int, int], path: str | os.PathLike[str]
) -> None:
    """Write the graph for images [N, height, width, C], any N: `images`, `result` and `logits`.

    DeviceError where TensorFlow is not installed in the versions that slim runs in.
    """
    with oracle.graph() as nets:
        tf, v1 = nets.tf, nets.tf.compat.v1
        images = v1.placeholder(tf.float32, (None, *size, network.channels), "images")
        net, end_points = oracle.calling(network)(nets, images)
        outputs = {"result": end_points.get("predictions", net)}
        if network.num_classes:
            outputs["logits"] = end_points[f"{network.scope}/logits"]
        for name, tensor in outputs.items():
            tf.identity(tensor, name)
        with oracle.session(nets) as session:
            variables = v1.global_variables()
            feeds = {variable.initializer.inputs[1]: weights[variable.op.name] for variable in variables}
            session.run([variable.initializer for variable in variables], feeds)
            graph = session.graph.as_graph_def()
            frozen = v1.graph_util.convert_variables_to_constants(session, graph, list(outputs))
    Path(path).write_bytes(frozen.SerializeToString())
