"""Layers without weights: tangents of activations, pooling and shape, and of layers in sequence."""

from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from bench.api.forms.ability import Tangent, push
from bench.api.forms.convolution import as_directions


@push.register
def _(module: nn.Sequential, x: Tensor, t: Tangent, space: Any) -> tuple[Tensor, Tangent]:
    for layer in module:
        x, t = push(layer, x, t, space)
    return x, t


@push.register
def reshaped(module: nn.Flatten, x: Tensor, t: Tangent, space: Any) -> tuple[Tensor, Tangent]:
    """A module that is linear and treats each example by itself: directions are further examples."""
    return module(x), None if t is None else as_directions(module(t.flatten(0, 1)), t)


@push.register
def _(module: nn.ReLU, x: Tensor, t: Tangent, space: Any) -> tuple[Tensor, Tangent]:
    y = module(x)
    space.rectified(y)
    return y, None if t is None else gate(t, y)


@push.register
def _(module: nn.Tanh, x: Tensor, t: Tangent, space: Any) -> tuple[Tensor, Tangent]:
    y = module(x)
    return y, None if t is None else t * (1 - y.square())


@push.register
def _(module: nn.MaxPool2d, x: Tensor, t: Tangent, space: Any) -> tuple[Tensor, Tangent]:
    y, where = F.max_pool2d(
        x, module.kernel_size, module.stride, module.padding, module.dilation, module.ceil_mode, return_indices=True
    )
    if t is None:
        return y, None
    return y, t.flatten(-2).gather(-1, where.flatten(-2).expand(len(t), -1, -1, -1)).view(len(t), *y.shape)


@push.register(nn.Linear)
@push.register(nn.Conv2d)
def _(module: nn.Module, x: Tensor, t: Tangent, space: Any) -> tuple[Tensor, Tangent]:
    y = module(x)
    return y, space.behind(module, x, y, space.through(module, x, t))


def gate(t: Tensor, y: Tensor) -> Tensor:
    """t where y > 0, else 0: an order of magnitude faster than a product with a mask."""
    gated: Tensor = torch.ops.aten.threshold_backward(t, y.expand_as(t), 0)
    return gated
