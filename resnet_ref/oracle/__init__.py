"""slim itself, run under TensorFlow: what everything else in this project is compared with.

Nothing of this project's own arithmetic is used here. Needed is `pip install 'resnet-ref[oracle]'`; TensorFlow is
imported on first use, never by importing this package.
"""

from resnet_ref.oracle.call import calling, scoped
from resnet_ref.oracle.environment import quiet, tensorflow
from resnet_ref.oracle.nets import Nets, graph, slim_nets
from resnet_ref.oracle.run import Build, OracleResult, Variables, run, save_checkpoint, session

__all__ = [
    "Build",
    "Nets",
    "OracleResult",
    "Variables",
    "calling",
    "graph",
    "quiet",
    "run",
    "save_checkpoint",
    "scoped",
    "session",
    "slim_nets",
    "tensorflow",
]
