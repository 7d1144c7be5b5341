"""How fast: ours beside onnxruntime, OpenVINO, PyTorch and TensorFlow, on the same weights and images."""
