"""What this machine can do, in lines for a person."""

import importlib.util
import os
from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from bench.registry import Registry


def examine(registry: "Registry", data_dir: Path | None) -> list[list[str]]:
    """Rows of (what, found)."""
    import torch

    from bench.data import CATALOG, default_data_dir, found
    from bench.measure import cpu_memory
    from bench.measure.environment import environment

    facts = environment(torch.device("cpu"), torch.get_num_threads())
    where = data_dir or default_data_dir()
    here = [name for name in CATALOG if found(name, where)]
    missing = [name for name in CATALOG if name not in here]
    free = os.statvfs(Path.cwd())
    return [
        ["python", facts["python"]],
        ["torch", torch.__version__],
        ["torchvision", _torchvision()],
        ["processor", f"{facts['cpu']}, {facts['cpu_count']} cores, {torch.get_num_threads()} threads"],
        ["memory", f"{facts['memory_bytes'] / 2**30:.1f} GiB"],
        ["disk", f"{free.f_bavail * free.f_frsize / 2**30:.1f} GiB free in this folder"],
        ["GPU", ", ".join(_gpus()) or "none that torch can use"],
        ["peak memory of a run", "measurable" if cpu_memory.peak() else "not measurable here (needs /proc)"],
        ["methods", ", ".join(sorted(registry.entries))],
        ["data folder", str(where)],
        ["data sets here", ", ".join(here)],
        ["data sets missing", f"{', '.join(missing)}; fetch with --download" if missing else "none"],
    ]


def _gpus() -> list[str]:
    import torch

    if not torch.cuda.is_available():
        return []
    return [torch.cuda.get_device_properties(i).name for i in range(torch.cuda.device_count())]


def _torchvision() -> str:
    if importlib.util.find_spec("torchvision") is None:
        return "not installed; needed for all data sets but digits and npz"
    try:
        import torchvision
    except (ImportError, RuntimeError, OSError) as error:
        return f"installed but broken ({' '.join(str(error).split())}); install the build that matches torch"
    return str(torchvision.__version__)
