"""What the cpu kernels stand on: compilation and threads."""
