"""EDM's noise levels and preconditioning, and how DiffusionBlocks shares the noise levels out among its blocks.

Papers: Karras, Aittala, Aila, Laine 2022, "Elucidating the design space of diffusion-based generative models",
arXiv 2206.00364, Table 1 and section 5; Shing, Koyama, Akiba 2026, arXiv 2506.14202 (partition and overlap). sigma is
the standard deviation of the noise, s that of the data, Phi the normal distribution function.

    z = u + sigma eps,   ln sigma ~ N(P_mean, P_std^2), truncated to [sigma_min, sigma_max]
    D(z; sigma) = c_skip z + c_out F(c_in z; c_noise),   weight(sigma) = (sigma^2 + s^2) / (sigma s)^2 = 1 / c_out^2
    c_skip = s^2 / (sigma^2 + s^2),   c_out = sigma s / sqrt(sigma^2 + s^2),   c_in = 1 / sqrt(sigma^2 + s^2)
    c_noise = ln(sigma) / 4
    edges: equal shares of the truncated log-normal's mass, e_0 = sigma_min < ... < e_B = sigma_max
    overlap: each interval [l, h] becomes [l (l/h)^gamma, h (h/l)^gamma], within [sigma_min, sigma_max]
    probability flow: dz/dsigma = (z - D(z; sigma)) / sigma
"""

import math
from dataclasses import dataclass
from itertools import pairwise
from statistics import NormalDist
from typing import NamedTuple, Self

import torch
from pydantic import BaseModel, Field, model_validator
from torch import Tensor

LEAST_MASS = (
    1e-6  # of the log-normal, that must lie between sigma_min and sigma_max: less cannot be shared out in float64
)


class EDMSettings(BaseModel):
    sigma_min: float = Field(0.002, gt=0, description="least noise")
    sigma_max: float = Field(80.0, gt=0, description="most noise")
    P_mean: float = Field(-1.2, description="mean of ln sigma in training, before truncation")
    P_std: float = Field(1.2, gt=0, description="standard deviation of ln sigma in training, before truncation")
    sigma_data: float = Field(
        0.5, gt=0, description="deviation of clean embeddings that preconditioning assumes",
        json_schema_extra={"search": ["log", 0.1, 1.0]},
    )  # fmt: skip

    @model_validator(mode="after")
    def _some_noise_to_share_out(self) -> Self:
        if self.sigma_min >= self.sigma_max:
            raise ValueError(f"sigma_min={self.sigma_min:g} must be below sigma_max={self.sigma_max:g}")
        if NoiseLevels.of(self).mass < LEAST_MASS:
            raise ValueError(
                f"of ln sigma ~ N({self.P_mean:g}, {self.P_std:g}^2) next to nothing lies between "
                f"sigma_min={self.sigma_min:g} and sigma_max={self.sigma_max:g}; move P_mean or widen P_std"
            )
        return self


class Interval(NamedTuple):
    """Noise levels that belong to a block."""

    low: float
    high: float

    def widened(self, gamma: float, within: "Interval") -> "Interval":
        """By a part gamma of its length in ln sigma, at each end."""
        stretch = (self.high / self.low) ** gamma
        return Interval(max(self.low / stretch, within.low), min(self.high * stretch, within.high))


@dataclass(frozen=True)
class NoiseLevels:
    """The truncated log-normal of sigma."""

    whole: Interval
    log_sigma: NormalDist

    @classmethod
    def of(cls, settings: EDMSettings) -> Self:
        return cls(Interval(settings.sigma_min, settings.sigma_max), NormalDist(settings.P_mean, settings.P_std))

    @property
    def mass(self) -> float:
        low, high = self._below(self.whole)
        return high - low

    def quantile(self, p: float) -> float:
        """The sigma below which a part p of the truncated distribution lies."""
        if p in (0.0, 1.0):
            return self.whole[int(p)]
        low, high = self._below(self.whole)
        return math.exp(self.log_sigma.inv_cdf(low + p * (high - low)))

    def shares(self, B: int) -> list[Interval]:
        """B intervals of equal mass, from noise to label."""
        edges = [self.quantile(k / B) for k in range(B + 1)]
        return [Interval(*pair) for pair in pairwise(edges)][::-1]

    def draw(self, n: int, interval: Interval, like: Tensor, generator: torch.Generator) -> Tensor:
        """n levels of the log-normal truncated to the interval. Shape: (n, 1), dtype and device of `like`.

        Drawn by the inverse of Phi in float64: in float32 the upper tail would be a staircase.
        """
        low, high = self._below(interval)
        p = torch.rand(n, 1, generator=generator, dtype=torch.float64, device=like.device)
        log_sigma = torch.special.ndtri(p.mul_(high - low).add_(low))
        sigma: Tensor = log_sigma.mul_(self.log_sigma.stdev).add_(self.log_sigma.mean).exp_()
        return sigma.clamp_(*interval).to(like.dtype)

    def _below(self, interval: Interval) -> tuple[float, float]:
        low, high = (self.log_sigma.cdf(math.log(sigma)) for sigma in interval)
        return low, high


class Preconditioning(NamedTuple):
    """EDM's factors at noise levels, and the weight of the loss there. Shape: each as sigma."""

    c_skip: Tensor
    c_out: Tensor
    c_in: Tensor
    c_noise: Tensor
    weight: Tensor


def precondition(sigma: Tensor, sigma_data: float) -> Preconditioning:
    total = sigma.square() + sigma_data**2
    c_in = total.rsqrt()
    c_out = sigma_data * sigma * c_in
    return Preconditioning(sigma_data**2 / total, c_out, c_in, sigma.log() / 4, c_out.square().reciprocal())


def inference_levels(levels: NoiseLevels, steps: int) -> list[float]:
    """sigma_max = s_0 > ... > s_{K-1} = sigma_min at equal steps of mass, then 0, where the last Euler step ends.

    One step alone begins at sigma_max. Shape: K + 1.
    """
    most = max(steps - 1, 1)
    return [*(levels.quantile((most - k) / most) for k in range(steps)), 0.0]


def owner(k: int, steps: int, B: int) -> int:
    """Whose interval holds s_k, blocks 0..B-1 counted from noise to label; the noisier one's, where it is an edge.

    In whole numbers, for rounding must not move a level across an edge.
    """
    most = max(steps - 1, 1)
    return max(B - 1 - (most - k) * B // most, 0)


def euler_step(z: Tensor, D: Tensor, sigma: float, after: float) -> Tensor:
    """z + (after - sigma) (z - D) / sigma; at after = 0 it is D. Shape: (B, d), (B, d) to (B, d)."""
    return torch.lerp(D, z, after / sigma)
