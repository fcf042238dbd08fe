"""Forward-mode differentiation along k directions at once, written out for the layers of the shared nets.

For y = f(x, w) a tangent pass carries y' = df/dx x' + df/dw w' beside y. All k directions share one evaluation of
f, and each rule below treats them in one call: a leading axis of length k, products with x' and w' batched over it.
No rule uses reverse mode, and the products are those of torch.func.jvp, without the cost of dispatching it.

Two spaces to perturb:
    weights      w' = v, one direction for the whole batch
    activities   w' = 0; behind each layer (where a LayerNorm follows it directly: behind that) x' gains a noise u
                 of its own for every example and position

Shape: x (B, ...), tangents (k, B, ...), weight directions (k, *shape of the weight).
"""

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Protocol

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from bench.api.layer import push
from bench.api.net import Net
from bench.nets.localmixer import Normed, Patches, PatchMean, Residual, in_groups

from .._shared.bilinear import Gradient, along_input, along_weights, as_directions, weight_gradient
from .._shared.directions import Draw

Tangent = Tensor | None  # None: no direction has reached this place


@dataclass
class Site:
    """A layer whose output was perturbed: its input, its noise, and the LayerNorm's state in between."""

    layer: nn.Module
    x: Tensor
    noise: Tensor
    norm: "Norm | None" = None

    def gradient(self, delta: Tensor) -> Gradient:
        """The gradient of the layer's weights for a gradient `delta` at the place of the noise."""
        return weight_gradient(self.layer, self.x, delta if self.norm is None else self.norm.linear(delta))


class Space(Protocol):
    """Where a tangent pass is perturbed."""

    def through(self, layer: nn.Module, x: Tensor, t: Tangent) -> Tangent:
        """The tangent behind a layer with weights."""

    def behind(self, layer: nn.Module, x: Tensor, y: Tensor, t: Tangent, norm: "Norm | None" = None) -> Tangent:
        """The tangent at the place where noise enters."""

    def rectified(self, y: Tensor) -> None:
        """The last noise passed a ReLU with output y."""


@dataclass
class Weights:
    """Directions in the space of weights."""

    directions: Mapping[Tensor, Tensor]

    def through(self, layer: nn.Module, x: Tensor, t: Tangent) -> Tangent:
        own = along_weights(layer, x, *(self.directions[p] for p in layer.parameters()))
        return own if t is None else own.add_(along_input(layer, t))

    def behind(self, layer: nn.Module, x: Tensor, y: Tensor, t: Tangent, norm: "Norm | None" = None) -> Tangent:
        return t

    def rectified(self, y: Tensor) -> None:
        """Weights are not noise."""


@dataclass
class Activities:
    """Noise on the activities, k draws for each example and position; the sites in the order of the pass."""

    k: int
    draw: Draw
    sites: list[Site] = field(default_factory=list)

    def through(self, layer: nn.Module, x: Tensor, t: Tangent) -> Tangent:
        return None if t is None else along_input(layer, t)

    def behind(self, layer: nn.Module, x: Tensor, y: Tensor, t: Tangent, norm: "Norm | None" = None) -> Tangent:
        noise = self.draw((self.k, *y.shape), y)
        self.sites.append(Site(layer, x, noise, norm))
        return noise if t is None else t.add_(noise)

    def rectified(self, y: Tensor) -> None:
        # where a unit is off its gradient is zero, so noise there would only add variance
        self.sites[-1].noise = _gate(self.sites[-1].noise, y)


@dataclass
class Carried:
    """Tangents on their way, to the last of which the layers' weights add where they have a direction."""

    last: Mapping[Tensor, Tensor] | None = None  # by weight, (1, *weight)

    def through(self, layer: nn.Module, x: Tensor, t: Tangent) -> Tangent:
        moved = None if t is None else along_input(layer, t)
        if self.last is None:
            return moved
        own = along_weights(layer, x, *(self.last[p] for p in layer.parameters()))
        if moved is None:
            return own
        moved[-1:] += own
        return moved

    def behind(self, layer: nn.Module, x: Tensor, y: Tensor, t: Tangent, norm: "Norm | None" = None) -> Tangent:
        return t

    def rectified(self, y: Tensor) -> None:
        """There is no noise."""


def forward(module: nn.Module, x: Tensor, space: Space) -> tuple[Tensor, Tensor]:
    """A module's output and its tangents. Shape: x (B, ...) to (B, ...), (k, B, ...). Raises: TypeError, see `push`."""
    y, t = push(module, x, None, space)
    if t is None:
        raise TypeError(f"{type(module).__name__} has no layer to perturb")
    return y, t


@push.register
def _(module: Net, x: Tensor, t: Tangent, space: Space) -> tuple[Tensor, Tangent]:
    for block in module.blocks:
        x, t = push(block, x, t, space)
    return x, t


@push.register
def _(module: nn.Sequential, x: Tensor, t: Tangent, space: Space) -> tuple[Tensor, Tangent]:
    for layer in module:
        x, t = push(layer, x, t, space)
    return x, t


@push.register
def _(module: Residual, x: Tensor, t: Tangent, space: Space) -> tuple[Tensor, Tangent]:
    y, ty = x, t
    for layer in module:
        y, ty = push(layer, y, ty, space)
    if ty is not None and t is not None:
        ty = ty + t
    return x + y, ty


@push.register(nn.Flatten)
@push.register(Patches)
@push.register(PatchMean)
def _(module: nn.Module, x: Tensor, t: Tangent, space: Space) -> tuple[Tensor, Tangent]:
    return module(x), None if t is None else as_directions(module(t.flatten(0, 1)), t)


@push.register
def _(module: nn.ReLU, x: Tensor, t: Tangent, space: Space) -> tuple[Tensor, Tangent]:
    y = module(x)
    space.rectified(y)
    return y, None if t is None else _gate(t, y)


@push.register
def _(module: nn.Tanh, x: Tensor, t: Tangent, space: Space) -> tuple[Tensor, Tangent]:
    y = module(x)
    return y, None if t is None else t * (1 - y.square())


@push.register
def _(module: nn.MaxPool2d, x: Tensor, t: Tangent, space: Space) -> tuple[Tensor, Tangent]:
    y, where = F.max_pool2d(
        x, module.kernel_size, module.stride, module.padding, module.dilation, module.ceil_mode, return_indices=True
    )
    if t is None:
        return y, None
    return y, t.flatten(-2).gather(-1, where.flatten(-2).expand(len(t), -1, -1, -1)).view(len(t), *y.shape)


@push.register
def _(module: Normed, x: Tensor, t: Tangent, space: Space) -> tuple[Tensor, Tangent]:
    before = Norm(x, module.groups)
    h = before.y
    a = module.layer(h)
    t = space.through(module.layer, h, None if t is None else before.linear(t))
    after = Norm(a, module.groups)
    return after.y, space.behind(module.layer, h, after.y, None if t is None else after.linear(t), after)


@push.register(nn.Linear)
@push.register(nn.Conv2d)
def _(module: nn.Module, x: Tensor, t: Tangent, space: Space) -> tuple[Tensor, Tangent]:
    y = module(x)
    return y, space.behind(module, x, y, space.through(module, x, t))


class Norm:
    """LayerNorm over channel groups, without affine part, and its Jacobian.

        y = (x - mean) / s,      J = (I - 1 1^T / n - y y^T / n) / s

    J is symmetric: `linear` carries tangents forward and gradients back alike.
    """

    def __init__(self, x: Tensor, groups: int) -> None:
        grouped = in_groups(x, groups)
        y, _, rstd = torch.native_layer_norm(grouped, grouped.shape[-1:], None, None, 1e-5)
        self.y, self.rstd, self.groups = y.flatten(-2), rstd, groups

    def linear(self, t: Tensor) -> Tensor:
        """J t. Shape: (..., B, P, C) to the same."""
        y, t = in_groups(self.y, self.groups), in_groups(t, self.groups)
        along = (t * y).mean(-1, keepdim=True)
        centred = t - t.mean(-1, keepdim=True)
        return centred.addcmul_(y, along, value=-1).mul_(self.rstd).flatten(-2)


def _gate(t: Tensor, y: Tensor) -> Tensor:
    """t where y > 0, else 0: an order of magnitude faster than a product with a mask."""
    gated: Tensor = torch.ops.aten.threshold_backward(t, y.expand_as(t), 0)
    return gated
