"""R2: the part of the variance of values that is predicted."""

import math
from typing import ClassVar

import torch
from torch import Tensor

from bench.api.kinds import Output, OutputKind
from bench.api.metric import Metric
from bench.catalog.register import register


@register
class R2(Metric):
    """1 - sum_n (y_n - out_n)^2 / sum_n (y_n - mean y)^2 of each value, and the mean over values.

    NaN where a value is the same in all examples.
    """

    name = "r2"
    key = "r2"
    title = "R2"
    what = "R2 (the part of the variance that is predicted)"
    outputs: ClassVar[tuple[OutputKind, ...]] = ("values",)
    bounds = (None, 1.0)
    decimals = 3

    def __init__(self, output: Output) -> None:
        super().__init__(output)
        self.sums: list[Tensor] = []  # of squared errors, labels, squared labels. Shape: (3, size)
        self.count = 0

    def add(self, out: Tensor, y: Tensor) -> None:
        truth = y.double()
        self.sums.append(torch.stack([(truth - out.double()).square(), truth, truth.square()]).sum(dim=1))
        self.count += len(y)

    def value(self) -> float:
        errors, total, squares = torch.stack(self.sums).sum(dim=0)
        variation = squares - total.square() / self.count
        if not (variation > 1e-12 * squares).all():
            return math.nan
        return float((1 - errors / variation).mean())
