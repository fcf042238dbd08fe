"""Layers with weights as what they are, bilinear maps: their tangents along inputs and weights, and outer products.

For y = f(x, w), linear in x and in w apart from the bias: df/dx t and df/dw v, both for k directions at once, and the
gradient of w for a gradient delta by y. Each layer's rule stands by itself; none goes through another layer.

Shape: x (B, ...), tangents (k, B, ...), weight directions (k, *shape of the weight).
"""

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.nn.grad import conv2d_weight

from bench.api.layer import Gradient, along_input, along_weights, weight_gradient
from bench.nets.localmixer import GroupedLinear, TokenLinear, in_groups

__all__ = ["Gradient", "along_input", "along_weights", "as_directions", "hand_over", "weight_gradient"]


def hand_over(gradient: Gradient) -> None:
    """Make these the parameters' gradients, in the parameters' own precision and memory format.

    Fused optimisers read both as they lie in memory: a gradient in another format would meet the wrong weights.
    """
    for p, g in gradient.items():
        p.grad = g if g.dtype == p.dtype and g.stride() == p.stride() else torch.empty_like(p).copy_(g)


@along_input.register
def _(layer: nn.Linear, t: Tensor) -> Tensor:
    return F.linear(t, layer.weight)


@along_weights.register
def _(layer: nn.Linear, x: Tensor, v: Tensor, v_bias: Tensor) -> Tensor:
    rows = x.flatten(0, -2)
    product = torch.baddbmm(v_bias[:, None], rows.expand(len(v), *rows.shape), v.mT)
    return product.view(len(v), *x.shape[:-1], -1)


@weight_gradient.register
def _(layer: nn.Linear, x: Tensor, delta: Tensor) -> Gradient:
    rows = delta.flatten(0, -2)
    weight = rows.T @ x.flatten(0, -2)
    return {layer.weight: weight} if layer.bias is None else {layer.weight: weight, layer.bias: rows.sum(0)}


@along_input.register
def _(layer: TokenLinear, t: Tensor) -> Tensor:
    return layer.weight @ t


@along_weights.register
def _(layer: TokenLinear, x: Tensor, v: Tensor, v_bias: Tensor) -> Tensor:
    return v[:, None] @ x + v_bias[:, None, :, None]


@weight_gradient.register
def _(layer: TokenLinear, x: Tensor, delta: Tensor) -> Gradient:
    return {layer.weight: torch.einsum("bpc,bqc->pq", delta, x), layer.bias: delta.sum((0, 2))}


@along_input.register
def _(layer: GroupedLinear, t: Tensor) -> Tensor:
    return torch.einsum("...gi,goi->...go", in_groups(t, layer.groups), layer.weight).flatten(-2)


@along_weights.register
def _(layer: GroupedLinear, x: Tensor, v: Tensor, v_bias: Tensor) -> Tensor:
    product = torch.einsum("bpgi,kgoi->kbpgo", in_groups(x, layer.groups), v)
    return product.flatten(-2) + v_bias[:, None, None]


@weight_gradient.register
def _(layer: GroupedLinear, x: Tensor, delta: Tensor) -> Gradient:
    grouped = in_groups(delta, layer.groups), in_groups(x, layer.groups)
    return {layer.weight: torch.einsum("bpgo,bpgi->goi", *grouped), layer.bias: delta.sum((0, 1))}


@along_input.register
def _(layer: nn.Conv2d, t: Tensor) -> Tensor:
    product = F.conv2d(t.flatten(0, 1), layer.weight, None, layer.stride, layer.padding, layer.dilation)
    return as_directions(product, t)


@along_weights.register
def _(layer: nn.Conv2d, x: Tensor, v: Tensor, v_bias: Tensor) -> Tensor:
    # directions become output channels; one direction stays as it lies in memory
    product = F.conv2d(x, v.flatten(0, 1), v_bias.flatten(), layer.stride, layer.padding, layer.dilation)
    return product.view(len(x), *v.shape[:2], *product.shape[2:]).transpose(0, 1)


@weight_gradient.register
def _(layer: nn.Conv2d, x: Tensor, delta: Tensor) -> Gradient:
    # the correlation of input and gradient, computed by the convolution library; no autograd graph is involved
    geometry = layer.stride, layer.padding, layer.dilation
    weight = conv2d_weight(x.to(delta.dtype), layer.weight.shape, delta, *geometry)  # which autocast passes by
    return {layer.weight: weight} if layer.bias is None else {layer.weight: weight, layer.bias: delta.sum((0, 2, 3))}


def as_directions(stacked: Tensor, t: Tensor) -> Tensor:
    """Directions and examples as two axes again, as in t. Shape: (k B, ...) to (k, B, ...)."""
    return stacked.view(*t.shape[:2], *stacked.shape[1:])
