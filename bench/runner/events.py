"""What is told of a run while it goes on; typed, and fit to be sent between processes and machines."""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from bench.api.column import Value


@dataclass(frozen=True)
class Started:
    """An attempt at the run begins."""


@dataclass(frozen=True)
class Shrunk:
    """The run has come to the end of the memory, and begins again with each batch cut into so many parts."""

    micro_batches: int


@dataclass(frozen=True)
class Resumed:
    """The run continues from its checkpoint. curve: its learning curve up to there, never empty."""

    curve: Sequence[Mapping[str, Value]]


@dataclass(frozen=True)
class Stepped:
    """So many training steps of all that the run will take, or may take, are done, in so many seconds."""

    step: int
    steps: int
    train_s: float


@dataclass(frozen=True)
class EpochEnded:
    """An epoch is over. row: its line in the learning curve; steps: all that the run will take."""

    row: Mapping[str, Value]
    steps: int


@dataclass(frozen=True)
class Kept:
    """The run was finished before; its record stays."""

    summary: Mapping[str, Any]


@dataclass(frozen=True)
class Ended:
    """The attempt is over, well or not: see summary["status"]."""

    summary: Mapping[str, Any]


Event = Started | Shrunk | Resumed | Stepped | EpochEnded | Kept | Ended
Tell = Callable[[Event], None]
