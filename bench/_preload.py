"""Imported once by the fork server; every run's process starts with it loaded."""

import bench.data.batches
import bench.data.loading
import bench.measure.environment
import bench.nets.denoiser
import bench.runner  # noqa: F401
