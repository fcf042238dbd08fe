"""Data sets: what there is, how it is read and checked, and how it is fed to a method.

The catalogue is free of torch; everything else is loaded on first use.
"""

from importlib import import_module
from typing import TYPE_CHECKING, Any

from bench.data.catalog import CATALOG, DatasetInfo, check_name, default_data_dir, found, require

if TYPE_CHECKING:
    from bench.data.batches import Batches
    from bench.data.dataset import Dataset, Split
    from bench.data.loading import load
    from bench.data.prototypes import class_prototypes

_HOME = {
    "Batches": "bench.data.batches",
    "Dataset": "bench.data.dataset",
    "Split": "bench.data.dataset",
    "class_prototypes": "bench.data.prototypes",
    "load": "bench.data.loading",
}

__all__ = [
    "CATALOG",
    "Batches",
    "Dataset",
    "DatasetInfo",
    "Split",
    "check_name",
    "class_prototypes",
    "default_data_dir",
    "found",
    "load",
    "require",
]


def __getattr__(name: str) -> Any:
    if name not in _HOME:
        raise AttributeError(f"module 'bench.data' has no attribute '{name}'")
    value = getattr(import_module(_HOME[name]), name)
    globals()[name] = value
    return value
