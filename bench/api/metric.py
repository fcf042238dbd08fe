"""How good predictions are, as one number over a whole split. The first metric of a task is its primary one."""

from abc import ABC, abstractmethod
from typing import ClassVar, Literal

from torch import Tensor

from bench.api.kinds import Output, OutputKind


class Metric(ABC):
    """A number over all examples of a split, from outputs that arrive batch by batch.

    Subclasses set the class attributes and implement `add` and `value`. An instance lives for one evaluation.

    name: as users write it. key: in column names, as in `test_acc`. title: its head in tables, with the unit. what: one
    line for readers. outputs: the kinds of output that it judges. better: which way is better. bounds: the least and
    the greatest value, None where there is none. scale: what a value is multiplied by where it is shown. decimals:
    places behind the point; None for three significant digits.
    """

    name: ClassVar[str]
    key: ClassVar[str]
    title: ClassVar[str]
    what: ClassVar[str]
    outputs: ClassVar[tuple[OutputKind, ...]]
    better: ClassVar[Literal["higher", "lower"]] = "higher"
    bounds: ClassVar[tuple[float | None, float | None]] = (None, None)
    scale: ClassVar[float] = 1.0
    decimals: ClassVar[int | None] = None

    def __init__(self, output: Output) -> None:
        self.output = output

    @abstractmethod
    def add(self, out: Tensor, y: Tensor) -> None:
        """Take in one batch without synchronising the device. Shape: out (B, *output.shape), y as `Output` says."""

    @abstractmethod
    def value(self) -> float:
        """The metric over all that was added, in its own unit before `scale`."""
