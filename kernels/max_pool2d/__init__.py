"""Max pooling, one file a tier."""
