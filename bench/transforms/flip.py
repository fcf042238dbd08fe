"""Horizontal flip of each image with probability 1/2."""

from typing import ClassVar

import torch
from torch import Tensor

from bench.api.kinds import InputKind
from bench.api.transform import Transform
from bench.catalog.register import register


@register
class Flip(Transform):
    """Horizontal flip of each image with probability 1/2."""

    name = "flip"
    takes: ClassVar[tuple[InputKind, ...]] = ("image",)

    def __call__(self, x: Tensor, y: Tensor, draws: torch.Generator) -> tuple[Tensor, Tensor]:
        flipped = torch.rand(len(x), 1, 1, 1, generator=draws, device=x.device) < 0.5
        return torch.where(flipped, x.flip(3), x), y
