"""What rules share whose error travels back layer by layer along matrices of its own: the layers, B, the way back.

    delta_l = (B_{l+1}^T delta_{l+1}) * sigma'(a_l),    grad W_l = delta_l h_{l-1}^T,    B shaped as W

A convolution sends its message through the transposed convolution with B. The first layer sends none and has no B.
"""

from collections.abc import Iterable, Sequence
from functools import partial
from math import sqrt
from typing import Any, cast

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.autograd import Function

from bench import Net
from bench.api.layer import can, routed

Layer = nn.Linear | nn.Conv2d


def sending_layers(net: Net) -> list[Layer]:
    """The layers that send a message to the one below: all but the first."""
    _, *layers = (cast(Layer, m) for m in net.modules() if can(routed, type(m)))
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


@routed.register
def _(layer: nn.Linear, B: Tensor, x: Tensor) -> Tensor:
    y: Tensor = _Linear.apply(x, layer.weight, layer.bias, B)
    return y


@routed.register
def _(layer: nn.Conv2d, B: Tensor, x: Tensor) -> Tensor:
    y: Tensor = _Conv2d.apply(x, layer.weight, layer.bias, B, layer)
    return y


# `forward` takes the context itself: with a `setup_context` of its own a step of a small net costs 3 to 5 % more
class _Linear(Function):
    """y = x W^T + bias, whose message back is delta B. Shape: x (..., n), W and B (m, n), y (..., m)."""

    @staticmethod
    def forward(ctx: Any, x: Tensor, W: Tensor, bias: Tensor | None, B: Tensor) -> Tensor:
        ctx.save_for_backward(x, B)
        ctx.has_bias = bias is not None
        return F.linear(x, W, bias)

    @staticmethod
    def backward(ctx: Any, delta: Tensor) -> tuple[Tensor, Tensor, Tensor | None, None]:
        x, B = ctx.saved_tensors
        rows = delta.flatten(0, -2)
        return delta @ B, rows.T @ x.flatten(0, -2), rows.sum(0) if ctx.has_bias else None, None


class _Conv2d(Function):
    """y = conv(x, W) + bias, whose message back is the transposed convolution of delta with B."""

    @staticmethod
    def forward(ctx: Any, x: Tensor, W: Tensor, bias: Tensor | None, B: Tensor, layer: nn.Conv2d) -> Tensor:
        ctx.save_for_backward(x, B)
        ctx.layer = layer
        return F.conv2d(x, W, bias, layer.stride, layer.padding, layer.dilation, layer.groups)

    @staticmethod
    def backward(ctx: Any, delta: Tensor) -> tuple[Tensor | None, ...]:
        x, B = ctx.saved_tensors
        layer: nn.Conv2d = ctx.layer
        bias_sizes = None if layer.bias is None else [layer.out_channels]
        # the weight enters backprop's kernel in the message alone, so B in its place is the whole rule
        message, grad_W, grad_bias = torch.ops.aten.convolution_backward(
            delta, x, B, bias_sizes, layer.stride, layer.padding, layer.dilation, False, [0, 0],
            layer.groups, [True, True, layer.bias is not None],
        )  # fmt: skip
        return message, grad_W, grad_bias, None, None
