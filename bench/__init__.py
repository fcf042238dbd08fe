"""Benchmark suite for learning with and without backprop: public API for method authors.

    from bench import Batch, Claims, Method, MethodInfo, Progress, Seeds, Task, register

Names are loaded on first use, so that `import bench` stays free of torch.
"""

from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from bench.method import Batch, Claims, Method, MethodInfo, Progress, Role, Task, Way
    from bench.registry import register
    from bench.seeding import Seeds

__version__ = "0.1.0"

_HOME = {
    "Batch": "bench.method",
    "Claims": "bench.method",
    "Method": "bench.method",
    "MethodInfo": "bench.method",
    "Progress": "bench.method",
    "Role": "bench.method",
    "Task": "bench.method",
    "Way": "bench.method",
    "Seeds": "bench.seeding",
    "register": "bench.registry",
}

__all__ = ["Batch", "Claims", "Method", "MethodInfo", "Progress", "Role", "Seeds", "Task", "Way", "register"]


def __getattr__(name: str) -> Any:
    if name not in _HOME:
        raise AttributeError(f"module 'bench' has no attribute '{name}'")
    value = getattr(import_module(_HOME[name]), name)
    globals()[name] = value
    return value
