"""Where the time of training goes: data against steps, each step by itself.

On a GPU a mark is an event in the stream, so that nothing waits inside the loop; times are read at epoch edges.
"""

import time
from dataclasses import dataclass, field
from typing import Any, Protocol

import torch


class Marks(Protocol):
    """A stopwatch of one epoch."""

    def mark(self) -> None: ...

    def intervals(self) -> list[float]:
        """Seconds between neighbouring marks; waits for the device."""


class CpuMarks:
    def __init__(self) -> None:
        self._at: list[float] = []
        self.mark = lambda now=time.perf_counter, keep=self._at.append: keep(now())

    def intervals(self) -> list[float]:
        return [after - before for before, after in zip(self._at, self._at[1:], strict=False)]


class CudaMarks:
    def __init__(self, device: torch.device) -> None:
        self._device = device
        self._at: list[torch.cuda.Event] = []

    def mark(self) -> None:
        event = torch.cuda.Event(enable_timing=True)
        event.record(torch.cuda.current_stream(self._device))
        self._at.append(event)

    def intervals(self) -> list[float]:
        torch.cuda.synchronize(self._device)
        return [a.elapsed_time(b) / 1000 for a, b in zip(self._at, self._at[1:], strict=False)]


def marks(device: torch.device) -> Any:
    return CudaMarks(device) if device.type == "cuda" else CpuMarks()


def synchronize(device: torch.device) -> None:
    if device.type == "cuda":
        torch.cuda.synchronize(device)


@dataclass
class Times:
    """Seconds spent so far, apart by what they were spent on; steps one by one."""

    train_s: float = 0.0
    data_s: float = 0.0
    eval_s: float = 0.0
    setup_s: float = 0.0
    steps_s: list[float] = field(default_factory=list)
