"""What rules share whose error travels back layer by layer along matrices of its own: the layers, B, the way back.

    delta_l = (B_{l+1}^T delta_{l+1}) * sigma'(a_l),    grad W_l = delta_l h_{l-1}^T,    B shaped as W

A convolution sends its message through the transposed convolution with B. The first layer sends none and has no B.
"""

from collections.abc import Iterable, Sequence
from functools import partial
from math import sqrt
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.autograd import Function

from bench import Net

Layer = nn.Linear | nn.Conv2d


def sending_layers(net: Net) -> list[Layer]:
    """The layers that send a message to the one below: all but the first."""
    _, *layers = (m for m in net.modules() if isinstance(m, (nn.Linear, nn.Conv2d)))
    return layers


def bound(layer: Layer) -> float:
    """1 / sqrt(fan_in): torch draws a layer's weights from U(-bound, bound)."""
    return 1 / sqrt(layer.weight[0].numel())


def uniform(layer: Layer, init: torch.Generator) -> Tensor:
    """B drawn by the law of the layer's own weights, on the CPU; after the net, whose start is that of every method."""
    b = bound(layer)
    return torch.empty(layer.weight.shape).uniform_(-b, b, generator=init)


def lay(layers: Sequence[Layer], matrices: Iterable[Tensor]) -> nn.ParameterList:
    """Give each layer its B, on the layer's device, for the way back. They ask for no gradient."""
    feedback = nn.ParameterList(
        nn.Parameter(B.to(layer.weight.device), requires_grad=False) for layer, B in zip(layers, matrices, strict=True)
    )
    for layer, B in zip(layers, feedback, strict=True):
        layer.forward = partial(routed, layer, B)  # type: ignore[method-assign]
    return feedback


def routed(layer: Layer, B: Tensor, x: Tensor) -> Tensor:
    """What the layer computes, with B on the way back."""
    if isinstance(layer, nn.Linear):
        y: Tensor = _Linear.apply(x, layer.weight, layer.bias, B)
    else:
        y = _Conv2d.apply(x, layer.weight, layer.bias, B, layer)
    return y


# `forward` takes the context itself: with a `setup_context` of its own a step of a small net costs 3 to 5 % more
class _Linear(Function):
    """y = x W^T + bias, whose message back is delta B. Shape: x (N, n), W and B (m, n), y (N, m)."""

    @staticmethod
    def forward(ctx: Any, x: Tensor, W: Tensor, bias: Tensor, B: Tensor) -> Tensor:
        ctx.save_for_backward(x, B)
        return F.linear(x, W, bias)

    @staticmethod
    def backward(ctx: Any, delta: Tensor) -> tuple[Tensor, Tensor, Tensor, None]:
        x, B = ctx.saved_tensors
        return delta @ B, delta.T @ x, delta.sum(0), None


class _Conv2d(Function):
    """y = conv(x, W) + bias, whose message back is the transposed convolution of delta with B."""

    @staticmethod
    def forward(ctx: Any, x: Tensor, W: Tensor, bias: Tensor, B: Tensor, layer: nn.Conv2d) -> Tensor:
        ctx.save_for_backward(x, B)
        ctx.layer = layer
        return F.conv2d(x, W, bias, layer.stride, layer.padding, layer.dilation, layer.groups)

    @staticmethod
    def backward(ctx: Any, delta: Tensor) -> tuple[Tensor | None, ...]:
        x, B = ctx.saved_tensors
        layer: nn.Conv2d = ctx.layer
        # the weight enters backprop's kernel in the message alone, so B in its place is the whole rule
        message, grad_W, grad_bias = torch.ops.aten.convolution_backward(
            delta, x, B, [layer.out_channels], layer.stride, layer.padding, layer.dilation, False, [0, 0],
            layer.groups, [True, True, True],
        )  # fmt: skip
        return message, grad_W, grad_bias, None, None
