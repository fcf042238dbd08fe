"""`bench doctor`: what this machine can do, in lines for a person."""

import importlib.metadata
import importlib.util
import os
from collections.abc import Mapping, Sequence
from pathlib import Path

from bench.catalog.catalog import Catalog
from bench.cli.options import DataDir, Plugins, catalog_of
from bench.display.printing import BAD_INPUT, table

NAME = "backprop-free-bench"  # of our distribution


def doctor(data_dir: DataDir = None, plugin: Plugins = None) -> int:
    """What this machine can do: torch, GPU, data sets found."""
    catalog, broken = catalog_of(plugin)
    table(["what", "found"], examine(catalog, data_dir))
    return BAD_INPUT if broken else 0


def examine(catalog: Catalog, data_dir: Path | None) -> list[list[str]]:
    """Rows of (what, found)."""
    import torch

    from bench.data import default_data_dir
    from bench.experiment import threads
    from bench.measure import cpu_load, cpu_memory
    from bench.measure.environment import environment

    facts = environment(torch.device("cpu"), torch.get_num_threads())
    where = data_dir or default_data_dir()
    sets = {name: cls() for name, cls in ((n, e.load()) for n, e in catalog.datasets.items()) if not cls.info.argument}
    missing = {name: dataset for name, dataset in sets.items() if dataset.missing(where)}
    to_fetch = [name for name, dataset in missing.items() if dataset.can_be_fetched]
    to_put = [name for name in missing if name not in to_fetch]
    here = [name for name in sets if name not in missing]
    free = os.statvfs(Path.cwd())
    others = others_of(importlib.metadata.packages_distributions())
    return [
        ["python", facts["python"]],
        ["torch", torch.__version__],
        ["torchvision", _torchvision()],
        ["processor", f"{facts['cpu']}, {facts['cpu_count']} cores, {threads.granted()} granted to this process"],
        ["threads of a step", f"{threads.default()} ({threads.OMP}, else 1; --threads asks for others)"],
        ["memory", f"{facts['memory_bytes'] / 2**30:.1f} GiB"],
        ["disk", f"{free.f_bavail * free.f_frsize / 2**30:.1f} GiB free in this folder"],
        ["GPU", ", ".join(_gpus()) or "none that torch can use"],
        ["peak memory of a run", "measurable" if cpu_memory.memory() else "not measurable here (needs /proc)"],
        ["energy of a run", _energy()],
        ["others' load", "measurable" if cpu_load.load() else "not measurable here (needs /proc)"],
        ["methods", ", ".join(sorted(catalog.methods))],
        *(
            [["package bench", f"also of {', '.join(others)}; install the suite in a venv of its own"]]
            if others
            else []
        ),
        ["data folder", str(where)],
        ["data sets here", ", ".join(here)],
        ["data sets missing", f"{', '.join(to_fetch)}; fetch with --download" if to_fetch else "none"],
        *([["data sets missing", f"{', '.join(to_put)}; put their files into the data folder"]] if to_put else []),
    ]


def others_of(distributions: Mapping[str, Sequence[str]]) -> list[str]:
    """Other distributions that install a package `bench`: their files and ours lie in one folder."""
    return sorted({*distributions.get("bench", ())} - {NAME})


def _gpus() -> list[str]:
    import torch

    if not torch.cuda.is_available():
        return []
    return [torch.cuda.get_device_properties(i).name for i in range(torch.cuda.device_count())]


def _energy() -> str:
    import torch

    from bench.measure.energy import gpu_counters, package_counters

    read = []
    if torch.cuda.is_available():
        found = bool(gpu_counters(torch.device("cuda", torch.cuda.current_device())))
        read.append("GPU measurable" if found else "GPU not measurable (needs the extra `energy`; Volta or later)")
    found = bool(package_counters())
    read.append("processor measurable" if found else "processor not measurable (needs readable RAPL counters)")
    return ", ".join(read)


def _torchvision() -> str:
    if importlib.util.find_spec("torchvision") is None:
        return "not installed; needed to read or fetch all data sets but digits, npz and imagefolder"
    try:
        import torchvision
    except (ImportError, RuntimeError, OSError) as error:
        return f"installed but broken ({' '.join(str(error).split())}); install the build that matches torch"
    return str(torchvision.__version__)
