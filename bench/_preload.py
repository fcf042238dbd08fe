"""Imported once by the fork server; every run's process starts with it loaded."""

import signal
from importlib import import_module

# A SIGTERM may go to the whole process group, as timeout(1) sends it: the server ends with the command, not before it,
# for the end of a run reaches the command through the server.
signal.signal(signal.SIGTERM, signal.SIG_IGN)

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
