"""What a run is made of and how far it has come: values, complete from the moment they exist."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path

import torch
from torch import Tensor

from bench.api.instrument import Derived, EdgeProbe, EndProbe, Gauge
from bench.api.method import Method
from bench.api.seeds import Seeds
from bench.api.task import Batch, Progress, Task
from bench.api.transform import Transform
from bench.audit.phases import Course
from bench.data import Batches
from bench.data.transformed import transformed
from bench.experiment.identity import RunSpec
from bench.measure.clock import Clock
from bench.runner.best import Best
from bench.runner.cost import Cost, Row


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
    rule_metrics: dict[str, list[Tensor]] | None = None  # what else its steps returned; None before the first step
    curve: list[Row] = field(default_factory=list)
    tables: dict[str, list[Row]] = field(default_factory=dict)  # of edge probes, by name
    stopped_by: str | None = None  # what has ended training, once something has


@dataclass(frozen=True)
class Training:
    """A run that is set up: its task, data, method and instruments.

    build makes a further, fresh instance. cost: what probes found in set-up. examine lets trials find what they do.
    best: the method's state after the best epoch, where that is to be tested.
    """

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
    end_probes: Sequence[EndProbe]
    derived: Sequence[Derived]
    build: Callable[[Seeds], Method]
    cost: Cost
    examine: Callable[[], Row]
    transforms: Sequence[Transform] = ()
    micro_batches: int = 1  # parts of each batch, after whole ones have run out of memory
    state: State = field(default_factory=State)
    best: Best = field(default_factory=Best)

    @cached_property
    def at_work(self) -> Sequence[Gauge]:
        """The gauges that have something to do while steps run."""
        return [gauge for gauge in self.gauges if not gauge.idle]

    @property
    def clock(self) -> Clock:
        clock = self.gauges[-1]
        assert isinstance(clock, Clock)
        return clock

    @property
    def steps_per_epoch(self) -> int:
        return self.spec.steps_per_epoch(self.task.n_train)

    @property
    def taken(self) -> int:
        """Steps taken so far."""
        return self.state.epoch * self.steps_per_epoch + self.state.step

    @property
    def passes(self) -> float:
        """Passes over the training data so far, an int between epochs; the last one may be a part."""
        whole, part = divmod(self.taken, self.steps_per_epoch)
        return whole + part / self.steps_per_epoch if part else whole

    @property
    def probed(self) -> Row:
        """What probes found, over the steps taken so far; over all steps where none has been."""
        return self.cost.row(self.course(self.total_steps), self.taken)

    @property
    def flops(self) -> float | None:
        """Those of the steps taken so far, added to those of the curve's last row; None where a step's are unknown."""
        last = self.state.curve[-1] if self.state.curve else {"step": 0, "train_flops": 0}
        before, since = last.get("train_flops"), last["step"]
        if not isinstance(before, (int, float)) or not isinstance(since, int):  # as in a checkpoint of older code
            before, since = 0, 0
        added = self.cost.flops(self.course(self.total_steps), self.taken, since)
        return None if added is None else before + added

    def course(self, total: int) -> Course:
        """A training of so many steps."""
        return Course(total, self.steps_per_epoch)

    @cached_property
    def affordable(self) -> int | None:
        """Steps that a budget of steps or of FLOPs allows; None where there is none, or a step's FLOPs are unknown."""
        if self.spec.steps is not None or self.spec.flops is None:
            return self.spec.steps
        return self.cost.affordable(self.spec.flops, self.steps_per_epoch * self.spec.epochs, self.course)

    @property
    def total_steps(self) -> int:
        """Steps that the run will take; the most that it may where seconds or validation end it."""
        most = self.steps_per_epoch * self.spec.epochs
        return most if self.affordable is None else min(most, self.affordable)

    def order(self) -> Tensor:
        """The order of images in the present epoch."""
        self.seeds.for_epoch(self.state.epoch)
        return self.train.order(self.seeds.order)

    @property
    def batch_of(self) -> Callable[[Tensor], Batch]:
        """Gives the training batch at an index, after transforms, which move `Seeds.augment`."""
        if not self.transforms:
            return self.train.batch
        return lambda index: transformed(self.train.batch(index), self.transforms, self.seeds.augment)

    def next_batch(self) -> Batch:
        """The first batch of the present epoch as the next step will see it; nothing moves."""
        draws = torch.Generator(self.device)
        draws.set_state(self.seeds.augment.get_state())
        return transformed(self.train.batch(self.order()[: self.spec.batch_size]), self.transforms, draws)

    def progress(self, step: int) -> Progress:
        """Where training stands as it takes a step, of all its steps."""
        return self.course(self.total_steps).at(step)

    def new_seeds(self) -> Seeds:
        return seeds_of(self.spec, self.device)


def seeds_of(spec: RunSpec, device: torch.device) -> Seeds:
    return Seeds(spec.seed, device, method=spec.method)
