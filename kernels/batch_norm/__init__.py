"""Batch normalisation, one file a tier."""
