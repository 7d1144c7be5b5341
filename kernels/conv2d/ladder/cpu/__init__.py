"""The rungs on the cpu."""
