"""Bias, activations and the residual sum, one file a tier."""
