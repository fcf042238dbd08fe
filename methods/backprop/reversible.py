"""Backprop, reversible: no activation of a coupling is kept; each is computed again from what comes out at the end.

Paper: Gomez, Ren, Urtasun, Grosse 2017, "The reversible residual network: Backpropagation without storing
activations", Algorithm 1. On the way back a coupling has its output y and the gradient of it:

    x2 = y2 - G(y1),    d1 = dL/dy1 + (dG/dy1)^T dL/dy2        grad W_G from dL/dy2
    x1 = y1 - F(x2),    d2 = dL/dy2 + (dF/dx2)^T d1            grad W_F from d1

(d1, d2) is the gradient of x. So F and G are evaluated twice in a step, 4 in place of 3 forward passes' worth of work,
and of all couplings one graph is alive at a time: what is retained does not grow with depth. The gradient is backprop's
but for the rounding of the sums that are taken back.
The first and the last block of the net are no couplings and keep what they need, as in backprop.
"""

from collections.abc import Sequence
from dataclasses import replace
from functools import partial
from typing import Any

import torch
from torch import Tensor, nn
from torch.autograd import Function

from bench import Claims, Facts, MethodInfo, Net, Seeds, Task, register
from bench.api.errors import ConfigError
from bench.nets.reversible import Coupling

from .whole_net import BackpropSettings, WholeNet


@register
class BackpropReversible(WholeNet):
    """Memory without activations, at the price of a second forward pass and of the net's form."""

    info = MethodInfo(
        name="backprop-reversible",
        title="Backprop, reversible",
        role="control",
        family="backprop",
        paper="rumelhart1986learning, gomez2017reversible",
        claims=Claims(reverse_mode="network", forward_passes=2, weight_transport=True, updates_wait_for="later blocks"),
        nets=("reversible",),
        outputs=("classes", "class probabilities", "values", "next token"),
    )
    Config = BackpropSettings

    @classmethod
    def refuse(cls, task: Task, config: Any, facts: Facts) -> str | None:
        for setting, silent in (("checkpoint", False), ("supervision", 0), ("learns", "all")):
            if getattr(config, setting) != silent:
                raise ConfigError(f"{cls.info.name} has no use for {setting}: no coupling keeps what it would need")
        return super().refuse(task, config, facts)

    def __init__(self, task: Task, config: BackpropSettings, *, device: torch.device, seeds: Seeds) -> None:
        super().__init__(task, config, device=device, seeds=seeds)
        self.net.forward = partial(forward, self.net)  # type: ignore[method-assign]

    def claims(self) -> Claims:
        claims = super().claims()
        return replace(claims, forward_passes=2 * claims.forward_passes)


def forward(net: Net, x: Tensor, noise: torch.Generator | None = None) -> Tensor:
    """Class scores, as the net gives them, with the couplings one step of the graph."""
    first, *couplings, last = net.blocks
    h = _Couplings.apply(first(x), couplings, *(p for coupling in couplings for p in coupling.parameters()))
    scores: Tensor = last(h)
    return scores


class _Couplings(Function):
    """A chain of couplings that keeps nothing but its output."""

    @staticmethod
    def forward(x: Tensor, couplings: Sequence[Coupling], *parameters: Tensor) -> Tensor:
        for coupling in couplings:
            x = coupling(x)
        return x

    @staticmethod
    def setup_context(ctx: Any, inputs: tuple[Any, ...], output: Tensor) -> None:
        ctx.couplings = inputs[1]
        ctx.save_for_backward(output)

    @staticmethod
    def backward(ctx: Any, delta: Tensor) -> tuple[Tensor | None, ...]:
        (y,) = ctx.saved_tensors
        (y1, y2), (d1, d2) = y.chunk(2, dim=1), delta.chunk(2, dim=1)
        del y, delta  # whose halves are let go as soon as there are new ones
        gradients: list[Tensor] = []
        for coupling in reversed(ctx.couplings):
            g, back, of_g = _again(coupling.g, y1, d2)
            y2, d1 = y2 - g, d1 + back
            del g, back
            f, back, of_f = _again(coupling.f, y2, d1)
            y1, d2 = y1 - f, d2 + back
            del f, back
            gradients = [*of_f, *of_g, *gradients]
        return torch.cat([d1, d2], dim=1), None, *gradients


def _again(function: nn.Module, x: Tensor, delta: Tensor) -> tuple[Tensor, Tensor, tuple[Tensor, ...]]:
    """A residual function's value at x, and the gradients that `delta` at its output gives its input and weights."""
    with torch.enable_grad():
        x = x.detach().requires_grad_()
        y = function(x)
    back, *of_weights = torch.autograd.grad(y, [x, *function.parameters()], delta)
    return y.detach(), back, tuple(of_weights)
