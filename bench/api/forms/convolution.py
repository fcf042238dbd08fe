"""Convolutions of images, of any stride, dilation, groups and padding.

Shape: x (B, c, h, w), weight (m, c / groups, ...), bias (m,) or none.

Padding other than by zeros is a step of its own, linear in x, ahead of a convolution without padding.
"""

from collections.abc import Mapping, Sequence
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.autograd import Function
from torch.nn.grad import conv2d_weight

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
def _(layer: nn.Conv2d, t: Tensor) -> Tensor:
    x, padding = padded(layer, t.flatten(0, 1))
    product = F.conv2d(x, layer.weight, None, layer.stride, padding, layer.dilation, layer.groups)
    return as_directions(product, t)


@along_weights.register
def _(layer: nn.Conv2d, x: Tensor, v: Tensor, v_bias: Tensor | None = None) -> Tensor:
    return convolve_members(layer, x[None], v, v_bias)


@weight_gradient.register
def _(layer: nn.Conv2d, x: Tensor, delta: Tensor) -> Gradient:
    # the correlation of input and gradient, computed by the convolution library; no autograd graph is involved
    x, padding = padded(layer, x.to(delta.dtype))  # which autocast passes by
    weight = conv2d_weight(x, layer.weight.shape, delta, layer.stride, padding, layer.dilation, layer.groups)
    return {layer.weight: weight} if layer.bias is None else {layer.weight: weight, layer.bias: delta.sum((0, 2, 3))}


@seen.register
def _(layer: nn.Conv2d, x: Tensor) -> Tensor:
    if layer.groups > 1:
        raise TypeError("no view of what a unit sees for a grouped Conv2d: its units see different channels")
    x, padding = padded(layer, x)
    patches = F.unfold(x, layer.kernel_size, layer.dilation, padding, layer.stride)
    return patches.transpose(1, 2).flatten(0, 1)


@members.register
def _(layer: nn.Conv2d, weights: Mapping[str, Tensor], batch_size: int, x: Tensor) -> Tensor:
    x = x.view(-1, batch_size, *x.shape[1:])
    return convolve_members(layer, x, weights["weight"], weights.get("bias")).flatten(0, 1)


@mirrored.register
def _(layer: nn.Conv2d, shape: Sequence[int], *, bias: bool) -> nn.Module:
    # of stride 1 (needs "chain"), so that shapes come back without further ado
    kernel, padding = layer.kernel_size, layer.padding
    assert isinstance(padding, tuple)
    return nn.ConvTranspose2d(layer.out_channels, layer.in_channels, kernel, padding=padding, bias=bias)  # type: ignore[arg-type]


@routed.register
def _(layer: nn.Conv2d, B: Tensor, x: Tensor) -> Tensor:
    y: Tensor = _Conv2d.apply(*padded(layer, x), layer.weight, layer.bias, B, layer)
    return y


def convolve_members(layer: nn.Conv2d, x: Tensor, weight: Tensor, bias: Tensor | None = None) -> Tensor:
    """Each member's own filters, in one convolution: as a group, or as further channels where the images are shared.

    Shape: x (k or 1, B, c, h, w), weight (k, m, c / groups, ...), bias (k, m), to (k, B, m, h', w').
    """
    shared, groups = len(x) == 1, layer.groups
    if shared and groups > 1:  # channels of a group lie side by side: a group's filters of all members come together
        weight, bias = _by_group(weight, groups), None if bias is None else _by_group(bias, groups)
    image, padding = padded(layer, x.transpose(0, 1).flatten(1, 2))
    y = F.conv2d(
        image, weight.flatten(0, 1), None if bias is None else bias.flatten(), layer.stride, padding, layer.dilation,
        len(x) * groups,
    )  # fmt: skip
    of_members: Tensor = y.unflatten(1, weight.shape[:2])
    if shared and groups > 1:
        of_members = y.unflatten(1, (groups, -1, layer.out_channels // groups)).transpose(1, 2).flatten(2, 3)
    return of_members.transpose(0, 1)


def _by_group(w: Tensor, groups: int) -> Tensor:
    """Shape: (k, m, ...) to (k, m, ...), whose rows are those of group 1 of all members, then of group 2, ..."""
    return w.view(len(w), groups, -1, *w.shape[2:]).transpose(0, 1).reshape(w.shape)


def padded(layer: nn.Conv2d, x: Tensor) -> tuple[Tensor, Any]:
    """The image as the convolution itself is to see it, and the padding by zeros that is left to it."""
    if layer.padding_mode == "zeros" and not isinstance(layer.padding, str):
        return x, layer.padding
    both = list(layer._reversed_padding_repeated_twice)
    mode = "constant" if layer.padding_mode == "zeros" else layer.padding_mode
    return F.pad(x, both, mode=mode), (0, 0)


def as_directions(stacked: Tensor, t: Tensor) -> Tensor:
    """Directions and examples as two axes again, as in t. Shape: (k B, ...) to (k, B, ...)."""
    return stacked.view(*t.shape[:2], *stacked.shape[1:])


# `forward` takes the context itself: with a `setup_context` of its own a step of a small net costs 3 to 5 % more
class _Conv2d(Function):
    """y = conv(x, W) + bias, whose message back is the transposed convolution of delta with B."""

    @staticmethod
    def forward(
        ctx: Any, x: Tensor, padding: Any, W: Tensor, bias: Tensor | None, B: Tensor, layer: nn.Conv2d
    ) -> Tensor:
        ctx.save_for_backward(x, B)
        ctx.layer, ctx.padding = layer, padding
        return F.conv2d(x, W, bias, layer.stride, padding, layer.dilation, layer.groups)

    @staticmethod
    def backward(ctx: Any, delta: Tensor) -> tuple[Tensor | None, ...]:
        x, B = ctx.saved_tensors
        layer: nn.Conv2d = ctx.layer
        bias_sizes = None if layer.bias is None else [layer.out_channels]
        # the weight enters backprop's kernel in the message alone, so B in its place is the whole rule
        message, grad_W, grad_bias = torch.ops.aten.convolution_backward(
            delta, x, B, bias_sizes, layer.stride, ctx.padding, layer.dilation, False, [0, 0],
            layer.groups, [True, True, layer.bias is not None],
        )  # fmt: skip
        return message, None, grad_W, grad_bias, None, None
