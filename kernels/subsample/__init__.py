"""Subsampling, one file a tier."""
