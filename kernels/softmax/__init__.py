"""Softmax, one file a tier."""
