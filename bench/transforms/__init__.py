"""The built-in transforms of training batches, a file each."""
