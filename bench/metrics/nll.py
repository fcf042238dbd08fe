"""Negative log-likelihood: how surprising the labels are to the predicted distribution."""

from typing import ClassVar

import torch
import torch.nn.functional as F
from torch import Tensor

from bench.api.kinds import Output, OutputKind
from bench.api.metric import Metric
from bench.catalog.register import register


@register
class NegativeLogLikelihood(Metric):
    """1/N sum_n -sum_c q_nc log softmax(out_n)_c in nats, with q the one-hot label or the label's distribution."""

    name = "nll"
    key = "nll"
    title = "NLL, nats"
    what = "negative log-likelihood of the labels under a softmax of the scores"
    outputs: ClassVar[tuple[OutputKind, ...]] = ("classes", "class probabilities")
    better = "lower"
    bounds = (0.0, None)
    decimals = 3

    def __init__(self, output: Output) -> None:
        super().__init__(output)
        self.sums: list[Tensor] = []
        self.count = 0

    def add(self, out: Tensor, y: Tensor) -> None:
        self.sums.append(F.cross_entropy(out.double(), y if y.dtype == torch.int64 else y.double(), reduction="sum"))
        self.count += len(y)

    def value(self) -> float:
        return float(torch.stack(self.sums).sum()) / self.count
