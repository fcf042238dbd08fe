"""Ways to step down a local loss: its gradient by reverse mode within a module, or an estimate of it without one.

Papers: Baydin, Pearlmutter, Syme, Wood, Torr 2022, "Gradients without backpropagation" (jvp); Spall 1992, "Multivariate
stochastic approximation using a simultaneous perturbation gradient approximation" (spsa). For one direction v over all
weights theta of a module and of what judges it, E[v v^T] = I:

    backprop   g = grad L
    jvp        g = (grad L . v) v,      the slope by forward-mode differentiation of one forward pass
    spsa       g = (L(theta + eps v) - L(theta - eps v)) / (2 eps) v

spsa never sees the module at theta itself: for loss and output it gives the means of the two sides, which differ from
those at theta by O(eps^2).

Any rule with local losses can take this over: `learn` asks for a function without arguments that gives the loss and the
output to hand on, and for the module that holds all weights in it.
"""

from collections.abc import Callable
from dataclasses import replace
from typing import Literal

import torch
from pydantic import BaseModel, Field
from torch import Tensor, nn
from torch.autograd import forward_ad
from torch.func import functional_call
from torch.optim import Optimizer

from bench import Claims, Objective
from bench.api.forms.general import load_forward_mode

from .bilinear import Gradient, hand_over
from .directions import Directions, Draw, draw, split, weight_directions

Closure = Callable[[], tuple[Tensor, Tensor]]  # the loss, and the output that the next module is given


class EstimatorSettings(BaseModel):
    gradient: Literal["backprop", "jvp", "spsa"] = Field(
        "backprop", description="the local loss's gradient, or an estimate: forward-mode derivative, finite difference"
    )
    directions: Directions = Field("rademacher", description="distribution of the directions of an estimate")
    eps: float = Field(1e-3, gt=0, description="length of spsa's perturbation, in units of the weights")


def learn(
    closure: Closure, weights: nn.Module, optimizer: Optimizer, config: EstimatorSettings, noise: torch.Generator
) -> tuple[Tensor, Tensor]:
    """One step of the optimiser down the loss. Returns loss and output as they were before it, detached.

    Graph and gradients are freed before this returns, as by `descend`.
    """
    loss, output = add_gradient(closure, weights, config, noise)
    optimizer.step()
    optimizer.zero_grad(set_to_none=True)
    return loss, output


def add_gradient(
    closure: Closure, weights: nn.Module, config: EstimatorSettings, noise: torch.Generator
) -> tuple[Tensor, Tensor]:
    """Add the loss's gradient, or its estimate, to that of the weights. Returns loss and output, detached."""
    if config.gradient == "backprop":
        loss, output = closure()
        torch.autograd.backward(loss)
        return loss.detach(), output.detach()
    loss, output, gradient = estimate(
        closure, weights, config, lambda shape, like: draw(shape, like, config.directions, noise)
    )
    for p, g in gradient.items():
        if p.grad is None:
            hand_over({p: g})
        else:
            p.grad.add_(g)
    return loss, output


def read_out(readout: nn.Module, objective: Objective, h: Tensor, y: Tensor) -> tuple[Tensor, Tensor]:
    """The closure of a read-out: the objective of its output, and the output."""
    out: Tensor = readout(h)
    return objective.loss(out, y), out


def claims_of(claims: Claims, config: EstimatorSettings) -> Claims:
    """What a rule's claims become where its gradients are estimated: nothing passes backwards."""
    if config.gradient == "backprop":
        return claims
    return replace(claims, reverse_mode="none", weight_transport=False)


@torch.no_grad()
def estimate(
    closure: Closure, weights: nn.Module, config: EstimatorSettings, draw: Draw
) -> tuple[Tensor, Tensor, Gradient]:
    """The loss, the output, and the estimate of the loss's gradient by each weight."""
    flat, parts = weight_directions(weights, 1, draw)
    direction = {name: parts[p].squeeze(0) for name, p in weights.named_parameters()}
    of = _Closure(closure, weights)
    loss, output, slope = _slope(of, direction) if config.gradient == "jvp" else _answer(of, direction, config.eps)
    return loss, output, split(slope * flat.squeeze(0), weights)


def _slope(of: "_Closure", direction: dict[str, Tensor]) -> tuple[Tensor, Tensor, Tensor]:
    load_forward_mode()
    with forward_ad.dual_level():
        duals = {name: forward_ad.make_dual(p.detach(), direction[name]) for name, p in of.weights.named_parameters()}
        loss, output = (forward_ad.unpack_dual(dual) for dual in of.at(duals))
        assert loss.tangent is not None  # every loss depends on some weight
        return loss.primal, output.primal, loss.tangent


def _answer(of: "_Closure", direction: dict[str, Tensor], eps: float) -> tuple[Tensor, Tensor, Tensor]:
    weights = dict(of.weights.named_parameters())
    above, output = of.at({name: p.add(direction[name], alpha=eps) for name, p in weights.items()})
    below, other = of.at({name: p.sub(direction[name], alpha=eps) for name, p in weights.items()})
    return (above + below) / 2, (output + other) / 2, (above - below) / (2 * eps)


class _Closure(nn.Module):
    """A closure as a function of the weights in it."""

    def __init__(self, closure: Closure, weights: nn.Module) -> None:
        super().__init__()
        self.closure, self.weights = closure, weights

    def forward(self) -> tuple[Tensor, Tensor]:
        return self.closure()

    def at(self, values: dict[str, Tensor]) -> tuple[Tensor, Tensor]:
        found: tuple[Tensor, Tensor] = functional_call(self, {f"weights.{n}": v for n, v in values.items()}, ())
        return found
