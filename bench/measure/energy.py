"""Energy by the machine's own counters: the GPU's, and that of the processor's packages where it may be read (RAPL).

A counter counts a whole device: its idle power, and the work of others that share it. The GPU's moves some ten times
a second, so that figures of runs of a second or less are rough. Reading RAPL needs the permission of whoever runs the
machine (`/sys/class/powercap`). What cannot be read is None.
"""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any, ClassVar

import torch

from bench.api.column import Column, Value
from bench.api.instrument import Derived, Gauge
from bench.catalog.register import register
from bench.measure import nvml
from bench.measure.clock import synchronize

POWERCAP = Path("/sys/class/powercap")


@dataclass(frozen=True)
class Counter:
    """Joules that only grow, until after `last` they begin again at 0."""

    read: Callable[[], float | None]
    last: float | None = None

    def between(self, before: float, after: float) -> float:
        """Joules from one reading to the next, between which the counter went round once at most."""
        return after - before if after >= before or self.last is None else after + self.last - before


@register
class Energy(Gauge):
    """Joules of GPU and processor while training steps run.

    Steps pause every ten seconds or so, in which no counter goes round twice.
    """

    name = "energy"
    rank: ClassVar[int] = 26
    columns = (
        Column(
            "gpu_energy_j",
            "GPU, J",
            "joules of the whole GPU during training steps",
            better="lower",
            shown="page",
            timed=True,
        ),
        Column(
            "cpu_energy_j",
            "CPU, J",
            "joules of the processor's packages during training steps",
            timed=True,
            better="lower",
            shown="page",
        ),
    )  # fmt: skip

    def __init__(self, device: torch.device) -> None:
        super().__init__(device)
        self._counters = {"gpu_energy_j": gpu_counters(device), "cpu_energy_j": package_counters()}
        self._joules = {name: 0.0 if counters else None for name, counters in self._counters.items()}
        self._before: dict[str, list[float | None]] = {}

    @property
    def idle(self) -> bool:
        return not any(self._counters.values())

    def on(self) -> None:
        synchronize(self.device)
        self._before = self._readings()

    def off(self) -> None:
        after = self._readings()
        for name, counters in self._counters.items():
            so_far, spent = self._joules[name], _spent(counters, self._before[name], after[name])
            self._joules[name] = None if so_far is None or spent is None else so_far + spent

    def read(self) -> Mapping[str, Value]:
        return dict(self._joules)

    def state_dict(self) -> dict[str, Any]:
        return dict(self._joules)

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        self._joules = dict(state)

    def _readings(self) -> dict[str, list[float | None]]:
        return {name: [counter.read() for counter in counters] for name, counters in self._counters.items()}


@register
class EnergyPerExample(Derived):
    """Joules for each image that was trained on."""

    name = "energy-per-example"
    rank: ClassVar[int] = 27
    columns = (
        Column(
            "gpu_j_per_example",
            "GPU, mJ/example",
            "GPU energy per example trained on",
            scale=1000,
            better="lower",
            timed=True,
        ),
        Column(
            "cpu_j_per_example",
            "CPU, mJ/example",
            "CPU energy per example trained on",
            scale=1000,
            better="lower",
            timed=True,
        ),
    )  # fmt: skip

    def derive(self, found: Mapping[str, Any]) -> Mapping[str, Value]:
        # the rate is of data and steps together, so this is the count of images
        examples = (found["examples_per_s"] or 0) * (found["train_s"] + found["data_s"])
        return {
            f"{of}_j_per_example": joules / examples if joules is not None and examples else None
            for of in ("gpu", "cpu")
            for joules in [found.get(f"{of}_energy_j")]
        }


def gpu_counters(device: torch.device) -> list[Counter]:
    """The counter of a GPU that has one."""
    gpu = nvml.gpu(device)
    return [] if gpu is None or gpu.energy_j() is None else [Counter(gpu.energy_j)]


def package_counters() -> list[Counter]:
    """A counter for each package of the processor; none where one of them cannot be read.

    Not those of parts (cores, memory), which their package counts already or does not know.
    """
    packages = [zone for zone in sorted(POWERCAP.glob("intel-rapl:*")) if _text(zone / "name").startswith("package")]
    counters = [
        Counter(partial(_joules, zone / "energy_uj"), _joules(zone / "max_energy_range_uj")) for zone in packages
    ]
    return counters if all(counter.read() is not None for counter in counters) else []


def _spent(counters: Sequence[Counter], before: Sequence[float | None], after: Sequence[float | None]) -> float | None:
    """Joules by all counters together; None without counters, or where one gave no reading."""
    spent = [
        None if a is None or b is None else counter.between(a, b)
        for counter, a, b in zip(counters, before, after, strict=True)
    ]
    known = [joules for joules in spent if joules is not None]
    return sum(known) if known and len(known) == len(spent) else None


def _joules(file: Path) -> float | None:
    text = _text(file)
    return int(text) / 1e6 if text.isdigit() else None


def _text(file: Path) -> str:
    try:
        return file.read_text().strip()
    except OSError:
        return ""
