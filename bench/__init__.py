"""Benchmark suite for learning with and without backprop.

For authors of methods, nets and data sets:

    from bench import Batch, Claims, Method, MethodInfo, Progress, Seeds, Task, register

For users in Python, as the command line has it:

    bench.run(methods=["noprop-dt", "backprop"], seeds=3)
    bench.load("results/default").summary()

Names are loaded on first use, so that `import bench` stays free of torch.
"""

from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from bench.api.artifact import Artifact, HeatMap, Images, Lines
    from bench.api.column import Column
    from bench.api.dataset import DataSet, DataSetInfo, Source, Split
    from bench.api.instrument import Chart, Derived, EdgeProbe, EndProbe, Gauge, Instrument, Probe, Trial
    from bench.api.kinds import Input, Output
    from bench.api.listener import Listener, RunInfo
    from bench.api.method import Claims, Method, MethodInfo, Role, Way
    from bench.api.metric import Metric
    from bench.api.net import Net
    from bench.api.objective import Objective
    from bench.api.seeds import Seeds
    from bench.api.settings import AdamSettings, AdamWSettings, StepSize, step_size
    from bench.api.task import Batch, Facts, Progress, Task
    from bench.api.transform import Transform
    from bench.catalog.register import register
    from bench.executors.executor import Executor
    from bench.study import Study, load, run

__version__ = "0.1.0"

_NAMES = {
    "bench.api.artifact": ("Artifact", "HeatMap", "Images", "Lines"),
    "bench.api.column": ("Column",),
    "bench.api.dataset": ("DataSet", "DataSetInfo", "Source", "Split"),
    "bench.api.instrument": ("Chart", "Derived", "EdgeProbe", "EndProbe", "Gauge", "Instrument", "Probe", "Trial"),
    "bench.api.listener": ("Listener", "RunInfo"),
    "bench.api.method": ("Claims", "Method", "MethodInfo", "Role", "Way"),
    "bench.api.kinds": ("Input", "Output"),
    "bench.api.metric": ("Metric",),
    "bench.api.net": ("Net",),
    "bench.api.objective": ("Objective",),
    "bench.api.seeds": ("Seeds",),
    "bench.api.settings": ("AdamSettings", "AdamWSettings", "StepSize", "step_size"),
    "bench.api.task": ("Batch", "Facts", "Progress", "Task"),
    "bench.api.transform": ("Transform",),
    "bench.catalog.register": ("register",),
    "bench.executors.executor": ("Executor",),
    "bench.study": ("Study", "load", "run"),
}
_HOME = {name: module for module, names in _NAMES.items() for name in names}

__all__ = [
    "AdamSettings",
    "AdamWSettings",
    "Artifact",
    "Batch",
    "Chart",
    "Claims",
    "Column",
    "DataSet",
    "DataSetInfo",
    "Derived",
    "EdgeProbe",
    "EndProbe",
    "Executor",
    "Facts",
    "Gauge",
    "HeatMap",
    "Images",
    "Input",
    "Instrument",
    "Lines",
    "Listener",
    "Method",
    "MethodInfo",
    "Metric",
    "Net",
    "Objective",
    "Output",
    "Probe",
    "Progress",
    "Role",
    "RunInfo",
    "Seeds",
    "Source",
    "Split",
    "StepSize",
    "Study",
    "Task",
    "Transform",
    "Trial",
    "Way",
    "load",
    "register",
    "run",
    "step_size",
]


def __dir__() -> list[str]:
    return [*__all__, "__version__"]


def __getattr__(name: str) -> Any:
    if name not in _HOME:
        raise AttributeError(f"module 'bench' has no attribute '{name}'")
    value = getattr(import_module(_HOME[name]), name)
    globals()[name] = value
    return value
