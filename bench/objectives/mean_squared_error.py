"""Mean squared error, for values, and for classes as one-hot targets."""

from typing import ClassVar

import torch
import torch.nn.functional as F
from torch import Tensor

from bench.api.kinds import OutputKind
from bench.api.objective import Objective
from bench.catalog.register import register


@register
class MeanSquaredError(Objective):
    """L_n = 1/2 |out_n - t_n|^2, with t the values, the one-hot label or the label's distribution.

    The sum over outputs, not their mean: the gradient by the output is out - t, as squared-error rules have it.
    """

    name = "squared-error"
    outputs: ClassVar[tuple[OutputKind, ...]] = ("values", "classes", "class probabilities")

    def losses(self, out: Tensor, y: Tensor) -> Tensor:
        return (out - self.embed(y)).square().sum(-1) / 2

    def loss(self, out: Tensor, y: Tensor) -> Tensor:
        return (out - self.embed(y)).square().sum() / (2 * len(out))

    def output_gradient(self, out: Tensor, y: Tensor) -> Tensor:
        return out.detach() - self.embed(y)

    def embed(self, y: Tensor) -> Tensor:
        return y if y.is_floating_point() else F.one_hot(y, self.output.size).float()

    def project(self, y: Tensor, weight: Tensor) -> Tensor:
        return super().project(y, weight) if y.is_floating_point() else weight[y]

    def constant(self, y: Tensor) -> Tensor:
        if y.is_floating_point():
            return y.mean(0)
        return torch.bincount(y, minlength=self.output.size).float() / len(y)
