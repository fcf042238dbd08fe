"""What a run is made of and how far it has come: values, complete from the moment they exist."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from pathlib import Path

import torch
from torch import Tensor

from bench.api.column import Value
from bench.api.instrument import Derived, EdgeProbe, Gauge
from bench.api.method import Method
from bench.api.seeds import Seeds
from bench.api.task import Progress, Task
from bench.data import Batches
from bench.measure.clock import Clock
from bench.spec.identity import RunSpec

Row = dict[str, Value]


@dataclass(frozen=True)
class Place:
    """Where a run happens; none of it decides its numbers."""

    device: torch.device
    data_dir: Path | None = None
    download: bool = False


@dataclass
class State:
    """How far a run has come. A checkpoint may lie between any two steps; `step` counts within the epoch."""

    epoch: int = 0
    step: int = 0
    losses: list[Tensor] = field(default_factory=list)  # of the epoch so far
    curve: list[Row] = field(default_factory=list)
    tables: dict[str, list[Row]] = field(default_factory=dict)  # of edge probes, by name


@dataclass(frozen=True)
class Training:
    """A run that is set up: its task, data, method and instruments. build makes a further, fresh instance."""

    spec: RunSpec
    task: Task
    device: torch.device
    train: Batches
    val: Batches
    test: Batches
    method: Method
    seeds: Seeds
    gauges: Sequence[Gauge]  # the clock is the last, so that it runs while nothing but training does
    edge_probes: Sequence[EdgeProbe]
    derived: Sequence[Derived]
    build: Callable[[Seeds], Method]
    probed: Row
    state: State

    @property
    def clock(self) -> Clock:
        clock = self.gauges[-1]
        assert isinstance(clock, Clock)
        return clock

    @property
    def steps_per_epoch(self) -> int:
        """Whole batches only, so that every step has one shape; the rest has its turn in another epoch's order."""
        return max(1, self.task.n_train // self.spec.batch_size)

    @property
    def total_steps(self) -> int:
        return self.steps_per_epoch * self.spec.epochs

    def order(self) -> Tensor:
        """The order of images in the present epoch."""
        self.seeds.for_epoch(self.state.epoch)
        return self.train.order(self.seeds.order)

    def progress(self, epoch: int, step: int) -> Progress:
        return Progress(epoch * self.steps_per_epoch + step, self.total_steps, epoch, self.spec.epochs, epoch)

    def new_seeds(self) -> Seeds:
        return seeds_of(self.spec, self.device)


def seeds_of(spec: RunSpec, device: torch.device) -> Seeds:
    return Seeds(spec.seed, device, method=spec.method)
