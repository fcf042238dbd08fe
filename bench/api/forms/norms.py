"""Layers that normalise: y = x^ * weight + bias, where x^ has mean 0 and variance 1 over the axes that the kind says.

The normalisation is nonlinear in x, and batch norm's ties the examples of a batch together in training mode: what it
computes then is a function of the whole batch. Members of a population are normalised by themselves, each over its own
B examples; running statistics rest, for k members have not one statistic between them (in evaluation mode they are
used as they stand).
"""

from collections.abc import Mapping

import torch.nn.functional as F
from torch import Tensor, nn

from bench.api.forms.ability import Gradient, members, weight_gradient

BatchNorm = nn.BatchNorm1d | nn.BatchNorm2d


@weight_gradient.register
def _(layer: nn.LayerNorm, x: Tensor, delta: Tensor) -> Gradient:
    n = len(layer.normalized_shape)
    whitened = F.layer_norm(x, layer.normalized_shape, None, None, layer.eps)
    return _affine(layer, whitened, delta, tuple(range(x.dim() - n)))


@weight_gradient.register
def _(layer: nn.GroupNorm, x: Tensor, delta: Tensor) -> Gradient:
    return _affine(layer, F.group_norm(x, layer.num_groups, None, None, layer.eps), delta, _but_channels(x))


@weight_gradient.register(nn.BatchNorm1d)
@weight_gradient.register(nn.BatchNorm2d)
def _(layer: BatchNorm, x: Tensor, delta: Tensor) -> Gradient:
    return _affine(layer, _batch_normed(layer, x), delta, _but_channels(x))


@members.register
def _(layer: nn.LayerNorm, weights: Mapping[str, Tensor], batch_size: int, x: Tensor) -> Tensor:
    whitened = F.layer_norm(x, layer.normalized_shape, None, None, layer.eps)
    return _scaled(whitened, weights, batch_size, channels_first=False)


@members.register
def _(layer: nn.GroupNorm, weights: Mapping[str, Tensor], batch_size: int, x: Tensor) -> Tensor:
    return _scaled(F.group_norm(x, layer.num_groups, None, None, layer.eps), weights, batch_size, channels_first=True)


@members.register(nn.BatchNorm1d)
@members.register(nn.BatchNorm2d)
def _(layer: BatchNorm, weights: Mapping[str, Tensor], batch_size: int, x: Tensor) -> Tensor:
    if _by_batch(layer):  # each member's examples by themselves: members are further channels
        k = len(x) // batch_size
        stacked = x.unflatten(0, (k, batch_size)).transpose(0, 1).flatten(1, 2)
        whitened = _batch_normed(layer, stacked).unflatten(1, (k, -1)).transpose(0, 1).flatten(0, 1)
    else:
        whitened = _batch_normed(layer, x)
    return _scaled(whitened, weights, batch_size, channels_first=True)


def _by_batch(layer: BatchNorm) -> bool:
    """Whether the statistics are those of the batch."""
    return layer.training or layer.running_mean is None


def _batch_normed(layer: BatchNorm, x: Tensor) -> Tensor:
    """x^ as the layer's mode says, without a trace in its running statistics."""
    if _by_batch(layer):
        return F.batch_norm(x, None, None, training=True, eps=layer.eps)
    return F.batch_norm(x, layer.running_mean, layer.running_var, training=False, eps=layer.eps)


def _but_channels(x: Tensor) -> tuple[int, ...]:
    return (0, *range(2, x.dim()))


def _affine(layer: nn.Module, whitened: Tensor, delta: Tensor, axes: tuple[int, ...]) -> Gradient:
    gradient: Gradient = {}
    for name in ("weight", "bias"):
        if (p := getattr(layer, name)) is not None:
            gradient[p] = (delta * whitened if name == "weight" else delta).sum(axes)
    return gradient


def _scaled(whitened: Tensor, weights: Mapping[str, Tensor], batch_size: int, *, channels_first: bool) -> Tensor:
    """Each member's own weight and bias. Shape: (B or k B, ...), weights (k, C) or (k, *normalized_shape)."""
    y = whitened.view(-1, batch_size, *whitened.shape[1:])
    for name in ("weight", "bias"):
        if (w := weights.get(name)) is not None:
            ahead = 1 if channels_first else y.dim() - w.dim()
            behind = y.dim() - w.dim() - ahead
            w = w.view(len(w), *[1] * ahead, *w.shape[1:], *[1] * behind)
            y = y * w if name == "weight" else y + w
    return y.flatten(0, 1)
