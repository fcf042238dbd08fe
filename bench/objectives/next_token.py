"""Cross-entropy of the token that follows each position."""

from typing import ClassVar

import torch
import torch.nn.functional as F
from torch import Tensor

from bench.api.kinds import OutputKind
from bench.api.objective import Objective
from bench.catalog.register import register


@register
class NextToken(Objective):
    """L_n = -1/T sum_t log softmax(out_nt)_{y_nt}: the mean over positions, in nats a token."""

    name = "next-token"
    outputs: ClassVar[tuple[OutputKind, ...]] = ("next token",)

    def losses(self, out: Tensor, y: Tensor) -> Tensor:
        each = F.cross_entropy(out.flatten(0, -2), y.expand(out.shape[:-1]).flatten(), reduction="none")
        return each.view(out.shape[:-1]).mean(-1)

    def output_gradient(self, out: Tensor, y: Tensor) -> Tensor:
        """(softmax(out) - onehot(y)) / T"""
        return (out.detach().softmax(dim=-1) - self.embed(y)) / out.shape[-2]

    def embed(self, y: Tensor) -> Tensor:
        return F.one_hot(y, self.output.size).float()

    def project(self, y: Tensor, weight: Tensor) -> Tensor:
        return weight[y]

    def constant(self, y: Tensor) -> Tensor:
        """Log frequencies of the tokens, the same at every position; one that never occurs counts as half."""
        counts = torch.bincount(y.flatten(), minlength=self.output.size).float().clamp(min=0.5)
        return (counts.log() - counts.sum().log()).expand(self.output.shape)
