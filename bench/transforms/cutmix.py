"""CutMix: a box of another image is pasted, and labels are mixed by its area.

Yun, Han, Oh, Chun, Choe, Yoo 2019, "CutMix: regularization strategy to train strong classifiers with localizable
features", with alpha = 1: one lam ~ Beta(1, 1) and one box a batch, of sides sqrt(1 - lam) times the image's, around a
uniform centre. As much of it as lies inside is pasted; the label's share of the other image is exactly that area's.
"""

import torch
from torch import Tensor

from bench.api.kinds import Input, Output
from bench.catalog.register import register
from bench.transforms.box import inside
from bench.transforms.mixing import Mixing


@register
class CutMix(Mixing):
    """Each image with a box of another one of its batch, at the same place in all of them."""

    name = "cutmix"

    def __init__(self, inputs: Input, outputs: Output) -> None:
        super().__init__(inputs, outputs)
        _, self.height, self.width = inputs.shape

    def __call__(self, x: Tensor, y: Tensor, draws: torch.Generator) -> tuple[Tensor, Tensor]:
        other, lam = self.partners(x, draws)
        rows, columns = (
            inside(
                size,
                torch.randint(size, (), generator=draws, device=x.device),
                ((1 - lam).sqrt() * size).to(torch.int64),
            )
            for size in (self.height, self.width)
        )
        box = rows[:, None] & columns
        return torch.where(box, x[other], x), self.shares(y, other, 1 - box.float().mean())
