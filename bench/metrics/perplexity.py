"""Perplexity: the number of equally likely tokens among which a model chooses."""

import math
from typing import ClassVar

import torch
import torch.nn.functional as F
from torch import Tensor

from bench.api.kinds import Output, OutputKind
from bench.api.metric import Metric
from bench.catalog.register import register

LARGEST = math.log(1e100)  # beyond it no record holds a number


@register
class Perplexity(Metric):
    """exp(-1/M sum_m log softmax(out_m)_{y_m}) over all M tokens of all examples; infinite above 1e100."""

    name = "perplexity"
    key = "perplexity"
    title = "perplexity"
    what = "perplexity"
    outputs: ClassVar[tuple[OutputKind, ...]] = ("next token",)
    better = "lower"
    bounds = (1.0, None)

    def __init__(self, output: Output) -> None:
        super().__init__(output)
        self.sums: list[Tensor] = []
        self.count = 0

    def add(self, out: Tensor, y: Tensor) -> None:
        self.sums.append(F.cross_entropy(out.flatten(0, 1).double(), y.flatten(), reduction="sum"))
        self.count += y.numel()

    def value(self) -> float:
        mean = float(torch.stack(self.sums).sum()) / self.count
        return math.exp(mean) if mean < LARGEST else math.inf
