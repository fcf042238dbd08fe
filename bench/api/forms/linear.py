"""Linear layers, of inputs with any leading axes. Shape: x (B, ..., n), weight (m, n), bias (m,) or none."""

from collections.abc import Mapping, Sequence
from math import prod
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.autograd import Function

from bench.api.forms.ability import (
    Gradient,
    along_input,
    along_weights,
    members,
    mirrored,
    routed,
    seen,
    weight_gradient,
)


@along_input.register
def _(layer: nn.Linear, t: Tensor) -> Tensor:
    return F.linear(t, layer.weight)


@along_weights.register
def _(layer: nn.Linear, x: Tensor, v: Tensor, v_bias: Tensor | None = None) -> Tensor:
    rows = x.flatten(0, -2)
    each = rows.expand(len(v), *rows.shape)
    product = torch.bmm(each, v.mT) if v_bias is None else torch.baddbmm(v_bias[:, None], each, v.mT)
    return product.view(len(v), *x.shape[:-1], -1)


@weight_gradient.register
def _(layer: nn.Linear, x: Tensor, delta: Tensor) -> Gradient:
    rows = delta.flatten(0, -2)
    weight = rows.T @ x.flatten(0, -2)
    return {layer.weight: weight} if layer.bias is None else {layer.weight: weight, layer.bias: rows.sum(0)}


@seen.register
def _(layer: nn.Linear, x: Tensor) -> Tensor:
    return x.flatten(0, -2)


@members.register
def _(layer: nn.Linear, weights: Mapping[str, Tensor], batch_size: int, x: Tensor) -> Tensor:
    weight, bias = weights["weight"], weights.get("bias")
    rows = x.reshape(-1, batch_size * prod(x.shape[1:-1]), x.shape[-1]).expand(len(weight), -1, -1)
    y = torch.bmm(rows, weight.mT) if bias is None else torch.baddbmm(bias.unsqueeze(1), rows, weight.mT)
    return y.view(-1, *x.shape[1:-1], y.shape[-1])


@mirrored.register
def _(layer: nn.Linear, shape: Sequence[int], *, bias: bool) -> nn.Module:
    return nn.Linear(layer.out_features, prod(shape), bias=bias)


@routed.register
def _(layer: nn.Linear, B: Tensor, x: Tensor) -> Tensor:
    y: Tensor = _Linear.apply(x, layer.weight, layer.bias, B)
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
