"""Plans for a gpu: a network for one shape of images, as launches on one piece of memory, captured in a CUDA graph."""
