"""Cutout: a square of each image is wiped out.

DeVries, Taylor 2017, "Improved regularization of convolutional neural networks with cutout": a square of half the
shorter side around a uniform centre, as much of it as lies inside. It is filled with 0, the mean of the training split.
"""

from typing import ClassVar

import torch
from torch import Tensor

from bench.api.kinds import Input, InputKind, Output
from bench.api.transform import Transform
from bench.catalog.register import register
from bench.transforms.box import inside


@register
class Cutout(Transform):
    """A square of half the shorter side, at a place of its own in each image, set to 0."""

    name = "cutout"
    takes: ClassVar[tuple[InputKind, ...]] = ("image",)

    def __init__(self, inputs: Input, outputs: Output) -> None:
        super().__init__(inputs, outputs)
        _, self.height, self.width = inputs.shape
        self.side = max(1, min(self.height, self.width) // 2)

    def __call__(self, x: Tensor, y: Tensor, draws: torch.Generator) -> tuple[Tensor, Tensor]:
        rows, columns = (
            inside(size, torch.randint(size, (len(x),), generator=draws, device=x.device), self.side)
            for size in (self.height, self.width)
        )
        return x.masked_fill_((rows[:, :, None] & columns[:, None, :])[:, None], 0), y
