"""What transforms share that mix images and their labels: y = lam y1 + (1 - lam) y2, a distribution over classes."""

from typing import ClassVar

import torch
from torch import Tensor
from torch.nn.functional import one_hot

from bench.api.kinds import CLASSES, InputKind, Output, OutputKind
from bench.api.transform import Transform


class Mixing(Transform):
    """Each image is mixed with another one of its batch, all by the same share lam."""

    takes: ClassVar[tuple[InputKind, ...]] = ("image",)
    judged: ClassVar[tuple[OutputKind, ...]] = CLASSES

    @classmethod
    def labels(cls, outputs: Output) -> Output:
        return Output("class probabilities", outputs.size)

    def partners(self, x: Tensor, draws: torch.Generator) -> tuple[Tensor, Tensor]:
        """A permutation of the batch, and lam ~ Beta(1, 1), which is uniform. Shape: (B,), ()."""
        other = torch.randperm(len(x), generator=draws, device=x.device)
        return other, torch.rand((), generator=draws, device=x.device)

    def shares(self, y: Tensor, other: Tensor, lam: Tensor) -> Tensor:
        """Labels of images of which lam is their own. Shape: y as `outputs` says, to (B, classes)."""
        q = y if y.is_floating_point() else one_hot(y, self.outputs.size).float()
        return torch.lerp(q[other], q, lam)
