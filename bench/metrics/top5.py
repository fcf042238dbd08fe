"""Top-5 accuracy: how often the label is among the five highest scores."""

from typing import ClassVar

import torch
from torch import Tensor

from bench.api.errors import ConfigError
from bench.api.kinds import Output, OutputKind
from bench.api.metric import Metric
from bench.catalog.register import register

K = 5


@register
class TopFive(Metric):
    """Fraction of examples whose label, or the label's most probable class, has one of the five highest scores."""

    name = "top-5"
    key = "top5"
    title = "top-5 acc, %"
    what = "top-5 accuracy (the label is among the five highest scores)"
    outputs: ClassVar[tuple[OutputKind, ...]] = ("classes", "class probabilities")
    bounds = (0.0, 1.0)
    scale = 100
    decimals = 2

    def __init__(self, output: Output) -> None:
        """Raises: ConfigError where there are no more than five classes, so that every prediction would be right."""
        super().__init__(output)
        if output.size <= K:
            raise ConfigError(f"the metric top-5 needs more than {K} classes, not {output.size}; use accuracy")
        self.hits: list[Tensor] = []
        self.count = 0

    def add(self, out: Tensor, y: Tensor) -> None:
        labels = y.argmax(dim=1) if y.is_floating_point() else y
        self.hits.append((out.topk(K, dim=1).indices == labels.unsqueeze(1)).sum())
        self.count += len(y)

    def value(self) -> float:
        return float(torch.stack(self.hits).sum()) / self.count
