"""Instruments, one per module."""
