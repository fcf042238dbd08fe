"""A GPU as its driver knows it, through NVIDIA's own library (the optional extra `energy`)."""

import os
from dataclasses import dataclass
from functools import cache
from typing import Any

import torch


@dataclass(frozen=True)
class Gpu:
    """library: the module pynvml; handle: its name for the device."""

    library: Any
    handle: Any

    def energy_j(self) -> float | None:
        """Joules since the driver was loaded; None where the device does not count (before Volta)."""
        try:
            return float(self.library.nvmlDeviceGetTotalEnergyConsumption(self.handle)) / 1000
        except self.library.NVMLError:
            return None

    def processes(self) -> list[int] | None:
        """The processes that compute on it, by the number that the driver has for them; None where it does not say."""
        try:
            return [of.pid for of in self.library.nvmlDeviceGetComputeRunningProcesses(self.handle)]
        except self.library.NVMLError:
            return None

    def process_bytes(self) -> int | None:
        """What the driver accounts to this process: context, kernels, libraries, allocators with their caches.

        None where it does not say, or has another number for the process, as in a container with numbers of its own.
        Source: nvmlDeviceGetComputeRunningProcesses, NVIDIA Management Library.
        """
        try:
            running = self.library.nvmlDeviceGetComputeRunningProcesses(self.handle)
        except self.library.NVMLError:
            return None
        return next((process.usedGpuMemory for process in running if process.pid == os.getpid()), None)


@cache
def gpu(device: torch.device) -> Gpu | None:
    """The device; None for a CPU, without the library, or where the driver does not know it."""
    if device.type != "cuda":
        return None
    try:
        import pynvml
    except ImportError:
        return None
    try:
        pynvml.nvmlInit()
        uuid = torch.cuda.get_device_properties(device).uuid  # the order of devices may be torch's own
        return Gpu(pynvml, pynvml.nvmlDeviceGetHandleByUUID(f"GPU-{uuid}"))
    except pynvml.NVMLError:
        return None
