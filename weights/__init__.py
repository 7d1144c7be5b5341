"""Arrays by name: the HDF5 store, TensorFlow's checkpoints, and the digits network that ships. Knows no arithmetic."""
