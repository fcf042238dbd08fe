"""Data sets: the built-in ones, how they are read and checked, and how they are fed to a method.

What needs torch is loaded on first use.
"""

from importlib import import_module
from typing import TYPE_CHECKING, Any

from bench.data.place import default_data_dir, require

if TYPE_CHECKING:
    from bench.data.batches import Batches
    from bench.data.dataset import Dataset
    from bench.data.loading import load
    from bench.data.prototypes import class_prototypes

_HOME = {
    "Batches": "bench.data.batches",
    "Dataset": "bench.data.dataset",
    "class_prototypes": "bench.data.prototypes",
    "load": "bench.data.loading",
}

__all__ = ["Batches", "Dataset", "class_prototypes", "default_data_dir", "load", "require"]


def __getattr__(name: str) -> Any:
    if name not in _HOME:
        raise AttributeError(f"module 'bench.data' has no attribute '{name}'")
    value = getattr(import_module(_HOME[name]), name)
    globals()[name] = value
    return value
