"""Normalisation of feature maps and of vectors, chosen by a word."""

from typing import Literal

from torch import nn

Norm = Literal["batch", "group", "none"]
GROUP = 8  # channels of a group, where that divides them


def norm_of(kind: Norm, channels: int, *, space: bool = True) -> list[nn.Module]:
    """The layers that normalise (B, channels, H, W), or (B, channels) without space: one or none."""
    if kind == "batch":
        return [nn.BatchNorm2d(channels) if space else nn.BatchNorm1d(channels)]
    if kind == "group":
        return [nn.GroupNorm(channels // GROUP if channels % GROUP == 0 else 1, channels)]
    return []
