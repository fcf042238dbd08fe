"""Expected calibration error: how far confidence is from accuracy.

Paper: Guo, Pleiss, Sun, Weinberger 2017, "On calibration of modern neural networks", ICML, equation 3. With B_m the
examples whose confidence lies in ((m - 1) / M, m / M] and M = 15:

    ECE = sum_m |B_m| / N * | accuracy(B_m) - mean confidence(B_m) |
"""

from typing import ClassVar

import torch
from torch import Tensor

from bench.api.kinds import Output, OutputKind
from bench.api.metric import Metric
from bench.catalog.register import register

BINS = 15


@register
class ExpectedCalibrationError(Metric):
    """Mean distance between confidence, the highest softmax probability, and accuracy, over 15 equal-width bins."""

    name = "ece"
    key = "ece"
    title = "ECE, %"
    what = f"expected calibration error (distance of confidence from accuracy over {BINS} bins of equal width)"
    outputs: ClassVar[tuple[OutputKind, ...]] = ("classes", "class probabilities")
    better = "lower"
    bounds = (0.0, 1.0)
    scale = 100
    decimals = 2

    def __init__(self, output: Output) -> None:
        super().__init__(output)
        self.sums: list[Tensor] = []  # by bin: hits minus confidences. Shape: (BINS,)
        self.count = 0

    def add(self, out: Tensor, y: Tensor) -> None:
        labels = y.argmax(dim=1) if y.is_floating_point() else y
        confidence, predicted = out.double().softmax(dim=1).max(dim=1)
        bins = (confidence * BINS).ceil().clamp(1, BINS) - 1
        member = bins.unsqueeze(0) == torch.arange(BINS, device=out.device).unsqueeze(1)
        self.sums.append(member.double() @ ((predicted == labels).double() - confidence))
        self.count += len(y)

    def value(self) -> float:
        return float(torch.stack(self.sums).sum(dim=0).abs().sum()) / self.count
