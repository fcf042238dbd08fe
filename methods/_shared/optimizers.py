"""Optimisers as the settings ask for them. Fused: one kernel for all parameters, where the device has it."""

from collections.abc import Iterable

from torch import Tensor
from torch.optim import Adam, AdamW

from bench import AdamSettings, AdamWSettings


def adamw(parameters: Iterable[Tensor], config: AdamWSettings) -> AdamW:
    """Weight decay apart from the gradient (Loshchilov, Hutter 2019)."""
    return AdamW(parameters, lr=config.lr, weight_decay=config.weight_decay, fused=True)


def adam(parameters: Iterable[Tensor], config: AdamSettings) -> Adam:
    """Weight decay as an L2 penalty, part of the gradient (Kingma, Ba 2015)."""
    return Adam(parameters, lr=config.lr, weight_decay=config.weight_decay, fused=True)
