"""Forward-mode differentiation along k directions at once, written out for the layers that have a form of it.

For y = f(x, w) a tangent pass carries y' = df/dx x' + df/dw w' beside y. All k directions share one evaluation of
f, and each rule below treats them in one call: a leading axis of length k, products with x' and w' batched over it.
No rule uses reverse mode, and the products are those of torch.func.jvp, without the cost of dispatching it. A module
without a form (a norm, a skip connection, attention) goes through torch's own forward mode, direction by direction.

Two spaces to perturb:
    weights      w' = v, one direction for the whole batch
    activities   w' = 0; behind each layer with weights (of localmixer: behind the LayerNorm that follows it) x' gains a
                 noise u of its own for every example and position

Shape: x (B, ...), tangents (k, B, ...), weight directions (k, *shape of the weight).
"""

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Protocol

import torch
from torch import Tensor, nn
from torch.nn.modules.dropout import _DropoutNd

from bench.api.forms.general import along, with_noise
from bench.api.forms.pointwise import gate, reshaped
from bench.api.kinds import Input
from bench.api.layer import Tangent, along_input, along_weights, push, weight_gradient
from bench.api.net import Net
from bench.api.structure import hidden_blocks, is_sequence, owners, unmet
from bench.nets.layers import ReLUDropout
from bench.nets.localmixer import Normed, Patches, PatchMean, Residual, in_groups

from .._shared.bilinear import Gradient
from .._shared.directions import Draw


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

    def whole(self, module: nn.Module, x: Tensor, t: Tangent) -> tuple[Tensor, Tangent]:
        """Output and tangents of a module without a form of its own."""


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

    def whole(self, module: nn.Module, x: Tensor, t: Tangent) -> tuple[Tensor, Tangent]:
        if t is None and not owners(module):
            return module(x), None
        return along(module, x, t, len(next(iter(self.directions.values()))), self.directions)


@dataclass
class Activities:
    """Noise on the activities, k draws for each example and position; the sites in the order of the pass."""

    k: int
    draw: Draw
    sites: list[Site] = field(default_factory=list)
    fresh: bool = False  # whether the last noise entered in the open, not inside a module without a form

    def through(self, layer: nn.Module, x: Tensor, t: Tangent) -> Tangent:
        return None if t is None else along_input(layer, t)

    def behind(self, layer: nn.Module, x: Tensor, y: Tensor, t: Tangent, norm: "Norm | None" = None) -> Tangent:
        noise = self.draw((self.k, *y.shape), y)
        self.sites.append(Site(layer, x, noise, norm))
        self.fresh = True
        return noise if t is None else t.add_(noise)

    def rectified(self, y: Tensor) -> None:
        # where a unit is off its gradient is zero, so noise there would only add variance
        if self.fresh and self.sites[-1].noise.shape[1:] == y.shape:
            self.sites[-1].noise = gate(self.sites[-1].noise, y)

    def whole(self, module: nn.Module, x: Tensor, t: Tangent) -> tuple[Tensor, Tangent]:
        layers = owners(module)
        if t is None and not layers:
            return module(x), None
        self.fresh = False
        return with_noise(module, x, t, self.k, layers, self._noise)

    def _noise(self, layer: nn.Module, x: Tensor, y: Tensor) -> Tensor:
        noise = self.draw((self.k, *y.shape), y)
        self.sites.append(Site(layer, x, noise))
        return noise


@dataclass
class Carried:
    """Tangents on their way, to the last of which the layers' weights add where they have a direction."""

    last: Mapping[Tensor, Tensor] | None = None  # by weight, (1, *weight)
    at_rest: bool = False  # whether statistics stay: another pass of the step has moved them

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

    def whole(self, module: nn.Module, x: Tensor, t: Tangent) -> tuple[Tensor, Tangent]:
        k = 1 if t is None else len(t)
        own = {p: torch.cat([v.new_zeros(k - 1, *p.shape), v]) for p, v in (self.last or {}).items()}
        return along(module, x, t, k, own, at_rest=self.at_rest)


def forward(module: nn.Module, x: Tensor, space: Space) -> tuple[Tensor, Tensor]:
    """A module's output and its tangents. Shape: x (B, ...) to (B, ...), (k, B, ...).

    Raises: TypeError, where nothing moves.
    """
    t: Tangent = None
    if isinstance(module, Net) and is_sequence(module):
        y = x
        for block in module.blocks:
            y, t = push(block, y, t, space)
    else:
        y, t = push(module, x, None, space)
    if t is None:
        raise TypeError(f"{type(module).__name__} has no layer to perturb")
    return y, t


@push.register
def _(module: Residual, x: Tensor, t: Tangent, space: Space) -> tuple[Tensor, Tangent]:
    y, ty = x, t
    for layer in module:
        y, ty = push(layer, y, ty, space)
    if ty is not None and t is not None:
        ty = ty + t
    return x + y, ty


push.register(Patches)(reshaped)
push.register(PatchMean)(reshaped)


@push.register
def _(module: Normed, x: Tensor, t: Tangent, space: Space) -> tuple[Tensor, Tangent]:
    before = Norm(x, module.groups)
    h = before.y
    a = module.layer(h)
    t = space.through(module.layer, h, None if t is None else before.linear(t))
    after = Norm(a, module.groups)
    return after.y, space.behind(module.layer, h, after.y, None if t is None else after.linear(t), after)


def refuse_activities(name: str, net: Net, inputs: Input) -> str | None:
    """Why noise on the activities of a net cannot be turned into its weights' gradients."""
    fault = unmet(("outer",), net, inputs)
    return fault and f"{name} with space=activity needs another net, or space=weight: {fault}"


def refuse_masks(name: str, net: Net) -> str | None:
    """Why a net's passes cannot be differentiated one by one."""
    masks = any(isinstance(m, (_DropoutNd, ReLUDropout)) and m.p > 0 for m in net.modules())
    return (
        f"{name} passes through layers once more for tangents, and dropout in {net.name} would differ"
        if masks
        else None
    )


def refuse_resting(name: str, net: Net) -> str | None:
    """Why blocks cannot each be given a loss of their own."""
    resting = any(not owners(block) for block in hidden_blocks(net))
    return f"{name} gives each hidden block a loss, and {net.name} has one without weights" if resting else None


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
