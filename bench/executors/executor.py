"""What an executor is: it brings the runs of a plan to their end, wherever the attempts at them are made.

One file each; one of others comes in by the entry-point group `bench.executors`, or by @register in a --plugin file.
Whatever makes the attempts, they are bench.executors.attempt.attempt, and the store is the same.
"""

import threading
from abc import ABC, abstractmethod
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any, ClassVar

from pydantic import BaseModel

from bench.api.errors import ConfigError
from bench.api.listener import missing_package
from bench.api.settings import NoSettings
from bench.catalog.catalog import Catalog
from bench.executors.attempt import Terms
from bench.executors.isolate import Summary
from bench.experiment.plan import Run
from bench.experiment.validation import validate_settings
from bench.runner.events import Event

Hear = Callable[[Run, Event], None]


@dataclass(frozen=True)
class Options:
    """How to run, as opposed to what: none of it is part of a run's identity. jobs: runs at a time, where told."""

    root: Path
    experiment: str
    device: str
    jobs: int | None = None
    data_dir: Path | None = None
    download: bool = False
    terms: Terms = field(default_factory=Terms)

    def resolved(self) -> "Options":
        """The same, with paths that mean the same to processes in other working folders."""
        data_dir = None if self.data_dir is None else self.data_dir.resolve()
        return replace(self, root=self.root.resolve(), data_dir=data_dir)


class Executor(ABC):
    """settings: of the model `Settings`, whose fields are options of `bench run --executor NAME`.

    Raises: ConfigError, when it is made, where a package that it needs is missing.
    """

    name: ClassVar[str]
    Settings: ClassVar[type[BaseModel]] = NoSettings

    def __init__(self, settings: Any = None) -> None:
        self.settings = settings if settings is not None else self.Settings()

    @property
    def detaches(self) -> bool:
        """Whether `run_all` returns once its runs are handed over; None stands for those that have not ended."""
        return False

    def device(self, asked: str) -> str:
        """The torch device of the runs. asked: auto, cpu, cuda or cuda:N. Raises: ConfigError where it is not there."""
        return device_here(asked)

    @abstractmethod
    def run_all(self, runs: list[Run], options: Options, listen: Hear, stop: threading.Event) -> list[Summary | None]:
        """Bring every run to an end; the summaries in the plan's order, None where `stop` came before the start.

        Finished runs are kept, interrupted ones continued; a run that another process works on is waited for.
        Raises: StoreError where results cannot be written.
        """


def make(catalog: Catalog, name: str, settings: Mapping[str, Any]) -> Executor:
    """An executor by name. Raises: ConfigError for a name, setting or value that is none, or a missing package."""
    cls = catalog.executors[name].load()
    checked = validate_settings(cls.Settings, settings, f"executor {name}")
    executor: Executor = cls(cls.Settings(**checked))
    return executor


def missing(name: str) -> ConfigError:
    """To be raised where an executor's package is not installed."""
    return missing_package(f"executor {name}", name)


def cpus_of(asked: int | None, runs: Sequence[Run]) -> int:
    """The cores that a scheduler is asked for, for each run. asked: by the user; else as many as it has threads.

    Raises: ConfigError for fewer than threads.
    """
    threads = max((run.spec.threads for run in runs), default=1)
    if asked is not None and asked < threads:
        raise ConfigError(f"--cpus {asked}: {threads} threads take {threads} cores; raise it, or lower --threads")
    return asked or threads


def device_here(asked: str) -> str:
    """What a device name means on this machine. Raises: ConfigError where there is none such."""
    import torch

    if asked == "auto":
        return "cuda" if torch.cuda.is_available() else "cpu"
    if asked.startswith("cuda"):
        count = torch.cuda.device_count() if torch.cuda.is_available() else 0
        index = int(asked.partition(":")[2] or 0)
        if index >= count:
            raise ConfigError(f"--device {asked}: this machine has {count or 'no'} CUDA device(s); use --device cpu")
    return asked


def device_there(asked: str, gpus: float) -> str:
    """What it means where the scheduler gives each run GPUs of its own, or none. Raises: ConfigError."""
    if asked.partition(":")[2]:
        raise ConfigError(f"--device {asked}: the scheduler chooses the GPU; use --device cuda")
    if asked == "cuda" and not gpus:
        raise ConfigError("--device cuda needs --gpus above 0")
    return ("cuda" if gpus else "cpu") if asked == "auto" else asked
