"""Accuracy: how often the highest score is the label's."""

from typing import ClassVar

import torch
from torch import Tensor

from bench.api.kinds import Output, OutputKind
from bench.api.metric import Metric
from bench.catalog.register import register


@register
class Accuracy(Metric):
    """Fraction of examples whose highest score is that of the label, or of the label's most probable class."""

    name = "accuracy"
    key = "acc"
    title = "acc, %"
    what = "accuracy"
    outputs: ClassVar[tuple[OutputKind, ...]] = ("classes", "class probabilities")
    bounds = (0.0, 1.0)
    scale = 100
    decimals = 2

    def __init__(self, output: Output) -> None:
        super().__init__(output)
        self.hits: list[Tensor] = []
        self.count = 0

    def add(self, out: Tensor, y: Tensor) -> None:
        labels = y.argmax(dim=1) if y.is_floating_point() else y
        self.hits.append((out.argmax(dim=1) == labels).sum())
        self.count += len(y)

    def value(self) -> float:
        return float(torch.stack(self.hits).sum()) / self.count
