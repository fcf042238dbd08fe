"""The built-in metrics, a file each."""
