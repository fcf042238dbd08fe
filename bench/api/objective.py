"""What a rule is to make small. A rule asks the task's objective, and never writes a loss of its own for labels."""

from abc import ABC, abstractmethod
from typing import ClassVar

import torch
from torch import Tensor

from bench.api.kinds import Output, OutputKind


class Objective(ABC):
    """A loss between a net's output and labels, with what rules without backprop need of it.

    Shapes: out (B, *output.shape); y as `Output` says. Subclasses set `name` and `outputs` and implement `losses`,
    `embed` and `constant`; the other members have slow defaults that follow from these.

    outputs: the kinds of output that it judges.
    """

    name: ClassVar[str]
    outputs: ClassVar[tuple[OutputKind, ...]]

    def __init__(self, output: Output) -> None:
        self.output = output

    @abstractmethod
    def losses(self, out: Tensor, y: Tensor) -> Tensor:
        """The loss of each example. Shape: (..., B, *output.shape) and y to (..., B); axes before B share y."""

    def loss(self, out: Tensor, y: Tensor) -> Tensor:
        """The mean of `losses` over a batch. Shape: ()."""
        return self.losses(out, y).mean()

    def output_gradient(self, out: Tensor, y: Tensor) -> Tensor:
        """The gradient of each example's loss by its own output, not divided by B. Shape: that of `out`, detached."""
        with torch.enable_grad():
            leaf = out.detach().requires_grad_()
            (gradient,) = torch.autograd.grad(self.losses(leaf, y).sum(), leaf)
        return gradient

    def loss_gradient(self, out: Tensor, y: Tensor) -> Tensor:
        """The gradient of `loss` by the output: `output_gradient` over B. Shape: that of `out`."""
        return self.output_gradient(out, y) / len(y)

    @abstractmethod
    def embed(self, y: Tensor) -> Tensor:
        """Labels as dense targets, what a perfect output stands for. Shape: (B, *output.shape) float32."""

    def project(self, y: Tensor, weight: Tensor) -> Tensor:
        """embed(y) @ weight, without the dense targets where labels are classes.

        Shape: weight (size, *units) to (B, *units).
        """
        sent: Tensor = torch.tensordot(self.embed(y).to(weight.dtype), weight, dims=1)
        return sent

    @abstractmethod
    def constant(self, y: Tensor) -> Tensor:
        """The output with the least loss on these labels among those that ignore the input: the chance level.

        Shape: (*output.shape).
        """
