"""Random crop: each image is padded by an eighth of its sides and cut to its size again, at a random place.

The padding is 0 in standardised images, the mean of the training split (where augmentation comes before
standardisation, as in torchvision's recipes, it is black).
"""

from typing import ClassVar

import torch
from torch import Tensor
from torch.nn.functional import pad

from bench.api.kinds import Input, InputKind, Output
from bench.api.transform import Transform
from bench.catalog.register import register


@register
class Crop(Transform):
    """Each image moved by up to an eighth of its height and width, independently; at least by up to one pixel."""

    name = "crop"
    takes: ClassVar[tuple[InputKind, ...]] = ("image",)

    def __init__(self, inputs: Input, outputs: Output) -> None:
        super().__init__(inputs, outputs)
        _, self.height, self.width = inputs.shape
        self.down, self.across = (max(1, round(side / 8)) for side in (self.height, self.width))

    def __call__(self, x: Tensor, y: Tensor, draws: torch.Generator) -> tuple[Tensor, Tensor]:
        n, down, across = len(x), self.down, self.across
        top = torch.randint(2 * down + 1, (n,), generator=draws, device=x.device)
        left = torch.randint(2 * across + 1, (n,), generator=draws, device=x.device)
        padded = pad(x, (across, across, down, down))
        # a view of every crop of every image; indexing copies the chosen ones. Shape: (B, C, places, places, H, W)
        crops = padded.unfold(2, self.height, 1).unfold(3, self.width, 1)
        return crops[torch.arange(n, device=x.device), :, top, left], y
