"""What measures a run. An instrument declares its columns, and by its base class in which pass it is on.

Gauge      timed    while training steps and `prepare_for_eval` run, in every run; must cost next to nothing
Probe      untimed  one training step and one prediction of a throwaway instance before training, in every run
EdgeProbe  untimed  between epochs, on a second instance put where training stands; where asked for by name
EndProbe   untimed  once training is over, on what it has left; where asked for by name
Trial      untimed  once training is over, whatever it tries with a fresh instance on a small net, in every run
Derived    untimed  nothing itself: it works out figures from those of others when a run ends
"""

from abc import ABC, abstractmethod
from collections.abc import Callable, Mapping, Sequence
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass
from typing import Any, ClassVar

import torch
from torch import Tensor

from bench.api.column import Column, Value
from bench.api.method import Method
from bench.api.seeds import Seeds
from bench.api.task import Batch, Progress, Task

FEW_IMAGES = 8  # fewer than a layer has inputs, and two for each part of a batch that is learnt in four
FIRST_STEPS = 2  # before a trial: a head that starts at zero holds still what learns through it

Reading = Callable[[], Mapping[str, Value]]


class Instrument(ABC):
    """Something that measures. `columns` are those that it adds to the record of every run.

    rank: its place among the columns of a table, from the left.
    """

    name: ClassVar[str]
    columns: ClassVar[tuple[Column, ...]] = ()
    rank: ClassVar[int] = 100


class Gauge(Instrument):
    """On while training steps and `prepare_for_eval` run, off at all other times."""

    def __init__(self, device: torch.device) -> None:
        self.device = device

    @property
    def idle(self) -> bool:
        """Whether there is nothing for it to do here while steps run: it is then neither put on nor off."""
        return False

    def settle(self) -> None:
        """Called once, when set-up is over and training is about to begin."""

    @abstractmethod
    def on(self) -> None:
        """Training steps begin, or go on."""

    @abstractmethod
    def off(self) -> None:
        """They end, or pause for something that does not count."""

    @abstractmethod
    def read(self) -> Mapping[str, Value]:
        """The columns' values, over all that has been on so far."""

    def state_dict(self) -> dict[str, Any]:
        """Plain values, kept in checkpoints, so that a resumed run counts what went before."""
        return {}

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        pass


class Probe(Instrument):
    """Looks on while a throwaway instance takes one step, not its first; may slow it as much as it likes.

    hooks: whether it puts hooks or modes between torch and its kernels. What torch.compile makes in that process
    afterwards is up to a hundred times slower, so such a probe is left out of runs that compile.
    by_shapes: whether its reading follows from the shapes of tensors alone; an estimate, which has no values, takes it.
    """

    hooks: ClassVar[bool] = False
    by_shapes: ClassVar[bool] = False

    @abstractmethod
    def watch(self, method: Method, outside: Sequence[Tensor]) -> AbstractContextManager[Reading]:
        """Watch what happens inside; the reading is taken after. outside: tensors that were there before the method.

        Several probes watch one step together.
        """

    def watch_prediction(self, method: Method, x: Tensor) -> AbstractContextManager[Reading]:
        """Watch one prediction of the images x, (B, C, H, W), after the steps. Default: nothing is read."""
        return nullcontext(dict)

    def over_phases(self, readings: Sequence[tuple[int, Mapping[str, Value]]]) -> Mapping[str, Value]:
        """The columns' values over several phases of training, from the steps and the reading of each.

        Default: the largest number, the different texts one after another, None where a phase lacks it.
        """
        return {name: _overall([of.get(name) for _, of in readings]) for name in readings[0][1]}


class Trial(Instrument):
    """Takes steps with a throwaway instance, under circumstances of its own making, and leaves it as it was.

    The instance is on a small net of the run's kind, FIRST_STEPS from the start of a phase of its training. Each phase
    is examined once, in order. The last call's values are recorded, so a trial keeps what it saw in earlier phases.
    Where the method fails under a trial, the columns of that and of later ones are blank.
    """

    @abstractmethod
    def examine(self, method: Method, seeds: Seeds, batch: Batch, progress: Progress) -> Mapping[str, Value]:
        """The columns' values. seeds: the instance's own. batch: a few training images."""


@dataclass(frozen=True)
class Chart:
    """A picture of an instrument's table: y against x, a line per row of the report's tables, means over seeds.

    x, y, panels: fields of the table. panels: whose values get a panel each. title: of y's axis, with its unit; else
    y's name. caption: one sentence below the picture. log: whether y's axis is logarithmic.
    """

    y: str
    x: str = "epoch"
    panels: str | None = None
    title: str = ""
    caption: str = ""
    log: bool = False


class EdgeProbe(Instrument):
    """Looks at a second instance between epochs, and before the first. Its rows make a table of the run's own.

    fields: the columns of that table after `epoch` and `step`; its name is the instrument's.
    charts: pictures of it in the report; where none is declared, a picture of each number.
    """

    fields: ClassVar[tuple[str, ...]]
    charts: ClassVar[tuple[Chart, ...]] = ()

    @abstractmethod
    def look(
        self, twin: Method, task: Task, seeds: Seeds, batch: Batch, progress: Progress
    ) -> Sequence[Mapping[str, Value]]:
        """Rows of the table. The twin has training's state and may be used up; seeds are the twin's own."""


class EndProbe(Instrument):
    """Looks at what training has left, once the run's own accuracies are taken. Its rows make a table of the run's own.

    fields: the columns of that table; its name is the instrument's. charts: as of an EdgeProbe.
    """

    fields: ClassVar[tuple[str, ...]]
    charts: ClassVar[tuple[Chart, ...]] = ()

    @abstractmethod
    def look(self, method: Method, train: Batch, held_out: Batch) -> Sequence[Mapping[str, Value]]:
        """Rows of the table. train, held_out: images of both kinds, a few thousand at most."""


class Derived(Instrument):
    """Figures that follow from what others have measured, such as a rate from a count and a time."""

    @abstractmethod
    def derive(self, found: Mapping[str, Any]) -> Mapping[str, Value]:
        """The columns' values. found: those of gauges, probes and trials; None, or no entry, for what they lack."""


def _overall(values: Sequence[Value]) -> Value:
    numbers = [value for value in values if isinstance(value, (int, float))]
    if len(numbers) == len(values):
        return max(numbers)
    if any(value is None for value in values):
        return None
    return ", ".join(dict.fromkeys(str(value) for value in values if value != ""))
