"""Peaks on a GPU that is played: what torch.cuda and NVML would say at each place."""

import os
import sys
from collections.abc import Callable
from types import ModuleType, SimpleNamespace

import pytest
import torch

from bench.measure import nvml
from bench.measure.gpu_memory import GpuMemory

GPU, CPU = torch.device("cuda:0"), torch.device("cpu")


class Played:
    """A GPU whose allocator holds what it is told to, its cache until that is emptied."""

    def __init__(self) -> None:
        self.allocated = self.most = self.reserved = 0

    def use(self, allocated: int) -> None:
        self.allocated = allocated
        self.most, self.reserved = max(self.most, allocated), max(self.reserved, allocated)

    def empty_cache(self) -> None:
        self.reserved = self.allocated

    def reset_peak_memory_stats(self, device: torch.device) -> None:
        self.most = self.allocated

    def max_memory_allocated(self, device: torch.device) -> int:
        return self.most

    def max_memory_reserved(self, device: torch.device) -> int:
        return self.reserved

    def get_device_properties(self, device: torch.device) -> SimpleNamespace:
        return SimpleNamespace(uuid="some-uuid")


class NVMLError(Exception):
    pass


Driver = Callable[[Callable[[str], list[SimpleNamespace]] | None], None]


@pytest.fixture
def gpu(monkeypatch: pytest.MonkeyPatch) -> Played:
    played = Played()
    for name in vars(Played):
        if hasattr(torch.cuda, name) and not name.startswith("_"):
            monkeypatch.setattr(torch.cuda, name, getattr(played, name))
    return played


@pytest.fixture
def driver(monkeypatch: pytest.MonkeyPatch) -> Driver:
    """driver(f): NVML, where f(uuid) gives the processes on a GPU; driver(None): there is no such library."""
    monkeypatch.setattr(nvml, "gpu", nvml.gpu.__wrapped__)

    def play(running: Callable[[str], list[SimpleNamespace]] | None) -> None:
        module = ModuleType("pynvml")
        parts = {
            "NVMLError": NVMLError,
            "nvmlInit": lambda: None,
            "nvmlDeviceGetHandleByUUID": lambda uuid: uuid,
            "nvmlDeviceGetComputeRunningProcesses": running,
        }
        vars(module).update(parts)
        monkeypatch.setitem(sys.modules, "pynvml", None if running is None else module)

    return play


def processes(mine: int | None) -> Callable[[str], list[SimpleNamespace]]:
    def running(uuid: str) -> list[SimpleNamespace]:
        assert uuid == "GPU-some-uuid"
        other = SimpleNamespace(pid=os.getpid() + 1, usedGpuMemory=999)
        return [other, SimpleNamespace(pid=os.getpid(), usedGpuMemory=mine)]

    return running


def test_peaks_are_those_between_on_and_off(gpu: Played, driver: Driver) -> None:
    """Two stretches of steps that reach 50 and 40, an evaluation between them that takes 200 and leaves a cache."""
    driver(lambda uuid: processes(1000 + gpu.reserved)(uuid))
    gauge = GpuMemory(GPU)
    for reached, then in ((50, 200), (40, 0)):
        gauge.on()
        gpu.use(reached)
        gpu.use(10)
        gauge.off()
        gpu.use(then)
        gpu.use(10)
    assert gauge.read() == {"gpu_peak_alloc_bytes": 50, "gpu_peak_reserved_bytes": 50, "gpu_process_bytes": 1050}
    resumed = GpuMemory(GPU)
    resumed.load_state_dict(gauge.state_dict())
    assert resumed.read() == gauge.read()


def refused(uuid: str) -> list[SimpleNamespace]:
    raise NVMLError


@pytest.mark.parametrize(
    "running",
    [None, refused, lambda uuid: [], processes(None)],
    ids=["no library", "refused", "unknown process", "not said"],
)
def test_what_the_driver_does_not_say_is_left_open(
    gpu: Played, driver: Driver, running: Callable[[str], list[SimpleNamespace]] | None
) -> None:
    driver(running)
    gauge = GpuMemory(GPU)
    gauge.on()
    gpu.use(50)
    gauge.off()
    assert gauge.read() == {"gpu_peak_alloc_bytes": 50, "gpu_peak_reserved_bytes": 50, "gpu_process_bytes": None}


def test_without_a_gpu_there_is_nothing_to_read() -> None:
    gauge = GpuMemory(CPU)
    assert gauge.idle
    assert set(gauge.read().values()) == {None}
