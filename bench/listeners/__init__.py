"""The built-in listeners, a file each, and the fan-out that calls them and those of plugins."""
