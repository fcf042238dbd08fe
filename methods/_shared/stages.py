"""Blocks taken apart into layer, activation and pooling, and what undoes the pooling."""

from collections.abc import Sequence
from dataclasses import dataclass

import torch.nn.functional as F
from torch import Tensor, nn

from bench.api.net import Net

from .direct_feedback import cut


@dataclass(frozen=True)
class Stage:
    """A block taken apart: `block(h) == pool(activation(weigh(h)))`."""

    weigh: nn.Module
    activation: nn.Module
    pool: nn.Module


def stages(net: Net) -> list[Stage]:
    """All blocks; the last one has neither activation nor pooling."""
    hidden = [Stage(of.learn[:-1], of.learn[-1], of.pool) for of in cut(net)]  # type: ignore[index]
    return [*hidden, Stage(net.blocks[-1], nn.Identity(), nn.Identity())]


def pooled(pool: nn.Module, a: Tensor) -> tuple[Tensor, Tensor | None]:
    """Max-pooling, and the places of the maxima; a itself and None where there is none."""
    layer = _pooling(pool)
    if layer is None:
        return a, None
    h, places = F.max_pool2d(a, layer.kernel_size, layer.stride, layer.padding, return_indices=True)
    return h, places


def unpooled(pool: nn.Module, h: Tensor, places: Tensor | None, size: Sequence[int]) -> Tensor:
    """Each value back at its place, zeros elsewhere.

    Shape: h (m N, C, ...) for places (N, C, ...) and the (N, C, H, W) of `size` before pooling; to (m N, C, H, W).
    """
    layer = _pooling(pool)
    if layer is None or places is None:
        return h
    where = places.repeat(len(h) // len(places), 1, 1, 1)
    unpool = nn.MaxUnpool2d(layer.kernel_size, layer.stride, layer.padding)
    lifted: Tensor = unpool(h, where, output_size=list(size[2:]))
    return lifted


def _pooling(pool: nn.Module) -> nn.MaxPool2d | None:
    return next((m for m in pool.modules() if isinstance(m, nn.MaxPool2d)), None)
