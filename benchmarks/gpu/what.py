"""What is measured, of ours and of PyTorch."""

VARIANT, SIZE = "resnet_v1_50", 224
PRECISIONS = ("float32", "tf32x3", "tf32", "bfloat16")  # ours, the most valuable first
BATCHES = (1, 8, 64)
PYTORCH = {"float32": "pytorch-gpu", "tf32": "pytorch-gpu-tf32", "bfloat16": "pytorch-gpu-bf16"}  # its, by precision


def network_piece(precision: str, batch: int) -> str:
    """The piece that holds a network's times."""
    return f"network_{precision}_{batch}"


def layers_piece(precision: str, batch: int) -> str:
    """The piece that holds the times of every way to compute each of its convolutions."""
    return f"layers_{precision}_{batch}"
