"""Shared networks as ordered blocks, and the layers that they are made of."""
