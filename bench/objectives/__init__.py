"""The built-in objectives, a file each."""
