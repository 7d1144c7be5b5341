"""Convolution by im2col, one file a tier; atrous convolution is its rate."""
