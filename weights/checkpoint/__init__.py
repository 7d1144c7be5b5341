"""TensorFlow checkpoints without TensorFlow: V1, V2 and TensorFlow 2's object checkpoints, in slim's names."""

from resnet_ref.weights.checkpoint.reader import Checkpoint, CheckpointFile, open_checkpoint
from resnet_ref.weights.checkpoint.variable import Variable

__all__ = ["Checkpoint", "CheckpointFile", "Variable", "open_checkpoint"]
