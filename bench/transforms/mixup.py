"""Mixup: x = lam x1 + (1 - lam) x2, and labels alike.

Zhang, Cisse, Dauphin, Lopez-Paz 2018, "mixup: beyond empirical risk minimization", with alpha = 1 as on CIFAR there:
one lam ~ Beta(1, 1) a batch, and partners from the same batch.
"""

from typing import ClassVar

import torch
from torch import Tensor

from bench.api.kinds import InputKind
from bench.catalog.register import register
from bench.transforms.mixing import Mixing


@register
class Mixup(Mixing):
    """Each example and another one of its batch, lam to 1 - lam."""

    name = "mixup"
    takes: ClassVar[tuple[InputKind, ...]] = ("image", "vector", "sequence")

    def __call__(self, x: Tensor, y: Tensor, draws: torch.Generator) -> tuple[Tensor, Tensor]:
        other, lam = self.partners(x, draws)
        return torch.lerp(x[other], x, lam), self.shares(y, other, lam)
