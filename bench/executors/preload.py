"""Imported once by the fork server: every process of a run starts with the harness and all that is in packages."""

import gc
import signal
import warnings
from contextlib import suppress
from importlib import import_module

from bench.catalog.catalog import Catalog
from bench.catalog.entry import remembering
from bench.data import digits
from bench.executors import strays

strays.adopt()
warnings.filterwarnings("ignore", "forkserver: waitpid returned unexpected pid")  # of what it has adopted

# A SIGTERM may go to the whole process group, as timeout(1) sends it: the server ends with the command, not before it,
# for the end of a run reaches the command through the server.
signal.signal(signal.SIGTERM, signal.SIG_IGN)

_catalog = Catalog()
_shelves = (_catalog.instruments, _catalog.nets, _catalog.methods, _catalog.datasets)
_entries = [entry for shelf in _shelves for entry in shelf.values()]
with remembering(_entries):
    for module in (
        "bench.measure.environment",
        "bench.runner.session",
        "torch._dynamo",  # torch's optimisers import it when the first one is made, which takes a second
    ):
        import_module(module)
    for entry in _entries:
        with suppress(Exception):  # told when it is asked for
            entry.load()

digits.everything()

gc.collect()
gc.freeze()  # what is here now no child needs to walk through again, to collect it or to look for tensors
