"""The rungs in CUDA."""
