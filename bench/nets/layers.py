"""Layers that torch lacks in the form needed here."""

import math

import torch
from torch import Tensor, nn


class ReLUDropout(nn.Module):
    """ReLU and inverted dropout, which draws its mask from a generator of its own.

    y = max(x, 0) * keep / (1 - p), keep ~ Bernoulli(1 - p); x is overwritten. Unlike nn.Dropout it leaves the global
    generator alone, so that blocks trained in parallel draw what they would draw one after another.
    """

    def __init__(self, p: float) -> None:
        super().__init__()
        self.p = p
        self.generator: torch.Generator | None = None

    def forward(self, x: Tensor) -> Tensor:
        if not self.training or self.p == 0:
            return x.relu_()
        # drawn in the order of memory, so that a channels-last input gets a mask of its own layout
        return self.drop(x, self.keep((x.numel(),), x.device, self.generator).as_strided(x.shape, x.stride()))

    def keep(self, shape: tuple[int, ...], device: torch.device, generator: torch.Generator | None) -> Tensor:
        """A mask of int16 that is 1 with probability 1 - p, else 0.

        16 random bits decide a unit (p is met within 2^-17): on a CPU a tenth of the time of bernoulli_. They become
        the mask where they are, for torch's kernels that make bools, or multiply by them, are not vectorised.
        """
        n = math.prod(shape)
        bits = torch.empty((n + 3) // 4, dtype=torch.int64, device=device).random_(-(2**63), None, generator=generator)
        return bits.view(torch.int16)[:n].ge_(min(round(self.p * 2**16), 2**16 - 1) - 2**15).view(shape)

    def drop(self, x: Tensor, keep: Tensor) -> Tensor:
        """max(x, 0) * keep / (1 - p)"""
        return (x.relu_() * keep).mul_(1 / (1 - self.p))

    def extra_repr(self) -> str:
        return f"p={self.p}"


def lend_generator(module: nn.Module, generator: torch.Generator, *, idle_only: bool = False) -> None:
    """Let every ReLUDropout inside `module` draw from `generator`. idle_only: those alone that have none yet."""
    for layer in module.modules():
        if isinstance(layer, ReLUDropout) and not (idle_only and layer.generator is not None):
            layer.generator = generator


def noise_like(shape: tuple[int, ...], like: Tensor, generator: torch.Generator | None) -> Tensor:
    """Standard normal draws of the dtype and device of `like`; their mean, 0, where there is no generator."""
    if generator is None:
        return like.new_zeros(shape)
    return torch.randn(shape, generator=generator, dtype=like.dtype, device=like.device)
