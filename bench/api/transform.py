"""What changes training batches between the data and the rule, such as augmentation. Never validation or test."""

from abc import ABC, abstractmethod
from typing import ClassVar

import torch
from torch import Tensor

from bench.api.kinds import Input, InputKind, Output, OutputKind


class Transform(ABC):
    """A random change of a whole training batch, on its device.

    Subclasses set `name` and `takes` and implement `__call__`. An instance lives for one run and keeps no state: at one
    seed and step every rule sees the same batch, and a resumed run goes on where it stood.

    takes, judged: the kinds of input and of output that it is made for.
    """

    name: ClassVar[str]
    takes: ClassVar[tuple[InputKind, ...]]
    judged: ClassVar[tuple[OutputKind, ...]] = ("classes", "class probabilities", "values", "next token")

    def __init__(self, inputs: Input, outputs: Output) -> None:
        self.inputs, self.outputs = inputs, outputs

    @classmethod
    def labels(cls, outputs: Output) -> Output:
        """What labels are afterwards, as the rule sees them: classes may become class probabilities."""
        return outputs

    @abstractmethod
    def __call__(self, x: Tensor, y: Tensor, draws: torch.Generator) -> tuple[Tensor, Tensor]:
        """The changed batch; x and y are its own to overwrite. All randomness is from `draws`, on the batch's device.

        No `.item()` or `.cpu()`: the clock is running. Shape: x (B, *inputs.shape) standardised, y as `outputs` says;
        to x of the same shape, and y as `labels` says.
        """
