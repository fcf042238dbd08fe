"""Where the time of training goes: data against steps, each step by itself.

On a GPU a mark is an event in the stream, so that nothing waits inside the loop; times are read when the clock stops.
"""

import statistics
import time
from collections.abc import Mapping
from dataclasses import asdict, dataclass, field
from typing import Any, ClassVar, Protocol

import torch

from bench.api.column import Column, Value
from bench.api.instrument import Gauge
from bench.catalog.register import register

PERIOD = 3  # marks of one step: its data begins, it begins, it ends


class Marks(Protocol):
    """A row of moments."""

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
    examples: int = 0
    steps_s: list[float] = field(default_factory=list)


@register
class Clock(Gauge):
    """The loop marks, three times a step, when data, step and end are there; all else is charged in seconds."""

    name = "clock"
    rank: ClassVar[int] = 20
    columns = (
        Column(
            "train_s", "train, s", "seconds in training steps; evaluation, data, loading and set-up are left out",
            better="lower", interval=True, shown="terminal", timed=True,
        ),
        Column(
            "step_ms_p50", "step p50, ms", "median time of a training step",
            better="lower", shown="terminal", timed=True,
        ),
        Column("step_ms_p95", "step p95, ms", "95th percentile of it", better="lower", shown="page", timed=True),
        Column(
            "examples_per_s", "examples/s", "images trained on per second, data included",
            better="higher", interval=True, shown="page", timed=True,
        ),
        Column("eval_s", "evaluation, s", "seconds in validation and test", timed=True),
        Column("data_s", "data, s", "seconds in putting mini-batches together", timed=True),
        Column("setup_s", "set-up, s", "seconds from the start of the process's work to the first step", timed=True),
        Column("steps", "steps", "training steps taken"),
    )  # fmt: skip

    def __init__(self, device: torch.device) -> None:
        super().__init__(device)
        self.times = Times()
        self._marks: Marks | None = None

    def on(self) -> None:
        synchronize(self.device)
        self._marks = CudaMarks(self.device) if self.device.type == "cuda" else CpuMarks()
        self.mark = self._marks.mark

    def off(self) -> None:
        """Intervals run data, step, (bookkeeping, data, step) ...; bookkeeping is nobody's."""
        assert self._marks is not None
        intervals = self._marks.intervals()
        steps_s = intervals[1::PERIOD]
        self.times.data_s += sum(intervals[0::PERIOD])
        self.times.train_s += sum(steps_s)
        self.times.steps_s += steps_s

    def read(self) -> Mapping[str, Value]:
        times, steps_ms = self.times, [1000 * s for s in self.times.steps_s]
        busy = times.train_s + times.data_s
        return {
            **{name: value for name, value in asdict(times).items() if name not in ("steps_s", "examples")},
            "steps": len(steps_ms),
            "step_ms_p50": statistics.median(steps_ms) if steps_ms else None,
            "step_ms_p95": float(torch.tensor(steps_ms, dtype=torch.float64).quantile(0.95)) if steps_ms else None,
            "examples_per_s": times.examples / busy if busy else None,
        }

    def state_dict(self) -> dict[str, Any]:
        return asdict(self.times)

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        self.times = Times(**state)
