"""Imported once by the fork server; every run's process starts with it loaded."""

from importlib import import_module

for module in (
    "bench.data.batches",
    "bench.data.loading",
    "bench.measure.environment",
    "bench.nets.denoiser",
    "bench.runner",
    "sklearn.datasets",
    "torch._dynamo",  # torch's optimisers import it when the first one is made, which takes a second
):
    import_module(module)
