"""The fast interpreter: a network for one shape of images, as a program of prepared kernels."""
