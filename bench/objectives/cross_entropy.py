"""Cross-entropy of a softmax, for labels that are classes or distributions over them."""

from typing import ClassVar

import torch
import torch.nn.functional as F
from torch import Tensor

from bench.api.kinds import OutputKind
from bench.api.objective import Objective
from bench.catalog.register import register


@register
class CrossEntropy(Objective):
    """L_n = -sum_c q_nc log softmax(out_n)_c, with q the one-hot label or the label's distribution."""

    name = "cross-entropy"
    outputs: ClassVar[tuple[OutputKind, ...]] = ("classes", "class probabilities")

    def losses(self, out: Tensor, y: Tensor) -> Tensor:
        if out.dim() == 2:
            return F.cross_entropy(out, y, reduction="none")
        # classes before examples: on a CPU a softmax along a short last axis takes ten times as long
        by_class = out.reshape(-1, *out.shape[-2:]).mT.contiguous()
        labels = y if hard(y) else y.mT
        shared = labels.expand(len(by_class), *labels.shape)
        return F.cross_entropy(by_class, shared, reduction="none").view(out.shape[:-1])

    def loss(self, out: Tensor, y: Tensor) -> Tensor:
        return F.cross_entropy(out, y)

    def output_gradient(self, out: Tensor, y: Tensor) -> Tensor:
        """softmax(out) - q"""
        return out.detach().softmax(dim=1) - self.embed(y)

    def embed(self, y: Tensor) -> Tensor:
        return F.one_hot(y, self.output.size).float() if hard(y) else y

    def project(self, y: Tensor, weight: Tensor) -> Tensor:
        if not hard(y):
            return super().project(y, weight)
        # unlike weight[y], the gradient of an embedding repeats bit for bit
        return F.embedding(y, weight.flatten(1)).view(len(y), *weight.shape[1:])

    def constant(self, y: Tensor) -> Tensor:
        """Log frequencies; a class that never occurs counts as half an example."""
        counts = torch.bincount(y, minlength=self.output.size).float() if hard(y) else y.sum(0)
        return counts.clamp(min=0.5).log() - counts.sum().log()


def hard(y: Tensor) -> bool:
    """Whether labels are classes, not distributions."""
    return not y.is_floating_point()
