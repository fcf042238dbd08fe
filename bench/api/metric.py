"""How good predictions are, as one number over a whole split. The first metric of a task is its primary one."""

from abc import ABC, abstractmethod
from typing import Any, ClassVar, Literal

from torch import Tensor

from bench.api.column import Column
from bench.api.kinds import Output, OutputKind

ACCURACY = "acc"  # its columns have the short heads of reports from before there were other metrics


class Metric(ABC):
    """A number over all examples of a split, from outputs that arrive batch by batch.

    Subclasses set the class attributes and implement `add` and `value`. An instance lives for one evaluation.

    name: as users write it. key: in column names, as in `test_acc`. title: its head in tables, with the unit, as in
    `acc, %`. what: a noun phrase that tables continue, as in `accuracy` (on the test images). outputs: the kinds of
    output that it judges. better: which way is better. bounds: the least and the greatest value, None where there is
    none. scale: what a value is multiplied by where it is shown. decimals: places behind the point; None for three
    significant digits.
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

    @classmethod
    def columns(cls) -> tuple[Column, ...]:
        """What records hold of it: test_KEY, test_KEY_std, test_KEY_noise_free and val_KEY."""
        examples = "images" if "classes" in cls.outputs else "examples"
        short = cls.title.partition("acc")[2] if cls.key == ACCURACY else f" {cls.title}"
        shared: dict[str, Any] = {"scale": cls.scale, "decimals": cls.decimals, "metric": cls.key}
        value = shared | {"better": cls.better, "interval": True, "bounds": cls.bounds}
        return (
            Column(
                f"test_{cls.key}",
                f"test {cls.title}",
                f"{cls.what} on the test {examples}, read once at the end; the mean over draws where inference draws "
                "noise",
                shown="page",
                **value,
            ),
            Column(
                f"test_{cls.key}_std",
                f"spread of draws,{short.removeprefix(',')}",
                "standard deviation over those draws",
                **shared,
            ),
            Column(
                f"test_{cls.key}_noise_free",
                f"noise-free{short}",
                f"test {cls.what} with every draw of inference at its mean",
                unless_equal=f"test_{cls.key}",
                **value,
            ),
            Column(
                f"val_{cls.key}",
                f"validation {cls.title}",
                f"{cls.what} on the validation {examples} after the last epoch; after the best under own convergence",
                **value,
            ),
        )

    @abstractmethod
    def add(self, out: Tensor, y: Tensor) -> None:
        """Take in one batch without synchronising the device. Shape: out (B, *output.shape), y as `Output` says."""

    @abstractmethod
    def value(self) -> float:
        """The metric over all that was added, in its own unit before `scale`."""
