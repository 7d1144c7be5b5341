"""Global average pooling, one file a tier."""
