"""How kernels reach a CUDA device: .cu files, launches, arrays, streams; the arithmetic is in the kernels' folders."""
