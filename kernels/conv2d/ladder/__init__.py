"""The convolution from its definition to the production kernel, one idea a rung; rungs.py lists them."""
