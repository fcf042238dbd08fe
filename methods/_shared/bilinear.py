"""Gradients that rules make themselves, as optimisers take them."""

import torch

from bench.api.layer import Gradient

__all__ = ["Gradient", "add", "hand_over"]


def hand_over(gradient: Gradient) -> None:
    """Make these the parameters' gradients, in the parameters' own precision and memory format.

    Fused optimisers read both as they lie in memory: a gradient in another format would meet the wrong weights.
    """
    for p, g in gradient.items():
        p.grad = g if g.dtype == p.dtype and g.stride() == p.stride() else torch.empty_like(p).copy_(g)


def add(gradient: Gradient, more: Gradient) -> None:
    """Add gradients of parameters, some of which may serve more than once in a pass."""
    for p, g in more.items():
        gradient[p] = gradient[p] + g if p in gradient else g
