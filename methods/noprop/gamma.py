"""Noise schedules in continuous time, fixed and learned, with the exact slope of their signal-to-noise ratio.

Paper: Li, Teh, Pascanu 2025, arXiv 2503.24322, Appendix B (after Kingma et al. 2021, "Variational diffusion models").

    abar(t) = sigmoid(-gamma(t)),   SNR(t) = exp(-gamma(t)),   SNR'(t) = -gamma'(t) exp(-gamma(t)) > 0
    gamma(t) = g0 + (g1 - g0) (1 - gbar(t)),   gbar(t) = (m(t) - m(0)) / (m(1) - m(0)),   g0 < g1
    learned:   m(t) = sum_k w_k sigmoid(v_k t + b_k) with w, v > 0;   linear:   m(t) = t

gamma falls from g1 (noise, t = 0) to g0 (label, t = 1). gamma' is in closed form, so that its own gradient needs no
second differentiation. Left open by the paper and chosen here: where g0 and g1 start, and the number of units.
"""

from typing import NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor, nn

UNITS = 64


class Noise(NamedTuple):
    """The schedule at some times. Shape: each as the times."""

    abar: Tensor
    gamma_slope: Tensor
    snr_slope: Tensor


class Schedule(nn.Module):
    """gamma with trained end points, -end and end at the start; linear in between."""

    def __init__(self, end: float) -> None:
        super().__init__()
        self.g0, self.g1 = nn.Parameter(torch.tensor(-end)), nn.Parameter(torch.tensor(end))

    def forward(self, t: Tensor) -> Noise:
        """Shape: t (K,) in [0, 1] to three of (K,). Never under autocast, whose rounding makes stairs of gbar."""
        with torch.autocast(t.device.type, enabled=False):
            rise, slope = self.risen(t)
        gamma = self.g0 + (self.g1 - self.g0) * (1 - rise)
        gamma_slope = -(self.g1 - self.g0) * slope
        return Noise(torch.sigmoid(-gamma), gamma_slope, -gamma_slope * torch.exp(-gamma))

    def risen(self, t: Tensor) -> tuple[Tensor, Tensor]:
        """gbar and gbar'. Shape: (K,) to two of (K,)."""
        return t, torch.ones_like(t)


class LearnedSchedule(Schedule):
    """gamma monotone through positive weights, of whatever shape serves the loss."""

    def __init__(self, end: float) -> None:
        super().__init__(end)
        self.inner, self.outer = nn.Linear(1, UNITS), nn.Linear(UNITS, 1, bias=False)  # a bias of m cancels in gbar

    def risen(self, t: Tensor) -> tuple[Tensor, Tensor]:
        v, w = F.softplus(self.inner.weight), F.softplus(self.outer.weight)
        ends = t.new_tensor([0.0, 1.0])
        s = torch.sigmoid(F.linear(torch.cat((ends, t))[:, None], v, self.inner.bias))
        low, high = F.linear(s[:2], w)
        m, slope = F.linear(s[2:], w), F.linear(s[2:] * (1 - s[2:]), w * v.mT)
        return ((m - low) / (high - low)).squeeze(1), (slope / (high - low)).squeeze(1)
