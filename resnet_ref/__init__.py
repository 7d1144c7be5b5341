"""slim's ResNet v1 without a framework."""
