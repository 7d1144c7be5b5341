"""slim's arg scope as a value: what `resnet_arg_scope()` returns and what a `Handle` carries."""

from dataclasses import dataclass


@dataclass(frozen=True)
class BatchNorm:
    """How batch norm runs: slim's batch_norm parameters that change a number."""

    decay: float
    epsilon: float
    scale: bool
    is_training: bool


@dataclass(frozen=True)
class ArgScope:
    """Defaults for the layers of a network. Made by `resnet_arg_scope`, which says what each field means."""

    weight_decay: float = 1e-4
    batch_norm_decay: float = 0.997
    batch_norm_epsilon: float = 1e-5
    batch_norm_scale: bool = True
    activation_fn: str | None = "relu"
    use_batch_norm: bool = True
    is_training: bool = True
    use_bounded_activations: bool = False
    max_pool2d_padding: str = "SAME"

    @property
    def batch_norm(self) -> BatchNorm | None:
        """The normalizer of a convolution, or None where convolutions have biases instead."""
        if not self.use_batch_norm:
            return None
        return BatchNorm(self.batch_norm_decay, self.batch_norm_epsilon, self.batch_norm_scale, self.is_training)
