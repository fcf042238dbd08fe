"""Root mean squared error, in the unit of the data."""

from typing import ClassVar

import torch
from torch import Tensor

from bench.api.kinds import Output, OutputKind
from bench.api.metric import Metric
from bench.catalog.register import register


@register
class RootMeanSquaredError(Metric):
    """sqrt(1/N sum_n (y_n - out_n)^2) of each value in its own unit, `Output.scale`, and the mean over values."""

    name = "rmse"
    key = "rmse"
    title = "RMSE"
    what = "root mean squared error in the unit of the data"
    outputs: ClassVar[tuple[OutputKind, ...]] = ("values",)
    better = "lower"
    bounds = (0.0, None)

    def __init__(self, output: Output) -> None:
        super().__init__(output)
        self.sums: list[Tensor] = []  # of squared errors. Shape: (size,)
        self.count = 0

    def add(self, out: Tensor, y: Tensor) -> None:
        self.sums.append((y.double() - out.double()).square().sum(dim=0))
        self.count += len(y)

    def value(self) -> float:
        of_each = (torch.stack(self.sums).sum(dim=0) / self.count).sqrt().cpu()
        return float((of_each * torch.tensor(self.output.scale or (1.0,), dtype=torch.float64)).mean())
