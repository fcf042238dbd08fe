"""Dual propagation against backprop's gradient, and whole steps beside its equations in numpy."""

from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from bench.methods.energy.dual_propagation import DualPropagation
from torch import Tensor, nn

from bench import Batch
from bench.nets.mlp import MLP
from bench.testing import CHECKS, Subject, small_task
from tests.methods.gradients import watched
from tests.methods.local.oracles import START
from tests.methods.rederived import AdamW, Array, Block, Labels, cross_entropy, linear, max_pool, max_pool_gradient
from tests.methods.whole_steps import (
    ON,
    assert_weights,
    batches,
    colour_task,
    in_double,
    number,
    numpy_blocks,
    train,
    weights_of,
)

Make = Callable[..., Any]
FORMS = ("adversarial", "original")
NETS: dict[str, dict[str, Any]] = {
    "mlp": {"width": 12, "depth": 3, "activation": "tanh"},
    "cnn": {"width": 3, "depth": 3},
}


@pytest.fixture
def batch64(batch: Batch) -> Batch:
    return Batch(batch.x.double(), batch.y)


def made(make_method: Make, net: str = "mlp", **settings: Any) -> DualPropagation:
    method: DualPropagation = in_double(make_method("dual-propagation", net=net, net_settings=NETS[net], **settings))
    return method


def gradients(method: DualPropagation, batch: Batch) -> tuple[list[Tensor], list[Tensor]]:
    """What the optimiser steps along, and backprop's."""
    exact = torch.autograd.grad(F.cross_entropy(method.net(batch.x), batch.y), list(method.net.parameters()))
    seen = watched([method.optimizer])
    method.train_step(batch, START)
    return [seen[id(p)] for p in method.net.parameters()], list(exact)


def distance(found: list[Tensor], exact: list[Tensor]) -> float:
    far = sum(float((f - e).square().sum()) for f, e in zip(found, exact, strict=True))
    return float((far / sum(float(e.square().sum()) for e in exact)) ** 0.5)


def linear_chain(method: DualPropagation) -> None:
    """The identity for every activation."""

    def identity(a: Tensor) -> Tensor:
        return a

    method._pairs(torch.zeros(16, 1, 8, 8, dtype=torch.float64)).activate = identity
    for block in method.net.blocks[:-1]:
        for name, layer in list(block.named_children()):
            if isinstance(layer, nn.Tanh):
                block[int(name)] = nn.Identity()  # type: ignore[index]


@pytest.mark.parametrize("alpha", [0.0, 0.3, 0.5, 1.0])
@pytest.mark.parametrize("sweeps", [1, 3])
def test_linear_layers_learn_by_backprops_gradient(
    make_method: Make, batch64: Batch, alpha: float, sweeps: int
) -> None:
    """At any nudging. Catches alpha and 1 - alpha exchanged, a sum over the batch, a missing 1 / beta, differences of
    the wrong sign, and inputs of products that are one of the two states in place of their mean.
    """
    method = made(make_method, alpha=alpha, sweeps=sweeps, beta=0.8)
    linear_chain(method)
    found, exact = gradients(method, Batch(batch64.x[:16], batch64.y[:16]))
    assert distance(found, exact) < 1e-12


def test_original_form_moves_the_mean(make_method: Make, batch64: Batch) -> None:
    """By (2 alpha - 1) s' V, so that linear layers no longer give the gradient, but at alpha = 1/2 they do."""
    for alpha, exact_form in ((0.5, True), (1.0, False)):
        method = made(make_method, form="original", alpha=alpha, beta=0.8, sweeps=2)
        linear_chain(method)
        found, exact = gradients(method, Batch(batch64.x[:16], batch64.y[:16]))
        assert (distance(found, exact) < 1e-12) == exact_form


@pytest.mark.parametrize("net", NETS)
@pytest.mark.parametrize("form", FORMS)
@pytest.mark.parametrize("alpha", [0.0, 0.5, 1.0])
def test_small_nudging_gives_backprops_gradient(
    make_method: Make, batch64: Batch, net: str, form: str, alpha: float
) -> None:
    """In one sweep, through pooling as well: the finite difference of s becomes its slope."""
    found, exact = gradients(made(make_method, net, form=form, alpha=alpha, beta=1e-6), batch64)
    assert distance(found, exact) < 1e-4


def test_error_falls_with_the_square_of_beta_where_states_lie_symmetric(make_method: Make, batch64: Batch) -> None:
    """alpha = 1/2 is a central difference: beta / 2 leaves a quarter of the error, alpha = 0 a half."""
    for alpha, factor in ((0.5, 4.0), (0.0, 2.0)):
        far = [distance(*gradients(made(make_method, alpha=alpha, beta=beta), batch64)) for beta in (2e-2, 1e-2)]
        assert far[0] / far[1] == pytest.approx(factor, rel=0.05)


@pytest.mark.parametrize("net", ON)
@pytest.mark.parametrize("settings", [{}, {"alpha": 0.2, "beta": 0.7, "sweeps": 3, "form": "original", "lr": 3e-3}])
def test_whole_steps(make_method: Make, net: str, settings: dict[str, Any]) -> None:
    """Catches adam for adamw, another default, a sweep from below, a mean from before the sweep in the products."""
    method = in_double(make_method("dual-propagation", task=colour_task(net), **settings))
    slow = Pairs(numpy_blocks(method.net), **settings)
    data = batches(3)
    found = train(method, data)
    for k, (x, y) in enumerate(data):
        assert found[k]["loss"] == pytest.approx(slow.step(number(x), y.numpy()), rel=1e-9)
    assert_weights(method.net, slow.blocks)


class Pairs:
    """p = s(W mean + b + up V), m = s(W mean + b - down V), V = W_above^T (p_above - m_above)."""

    def __init__(self, blocks: list[Block], **settings: Any) -> None:
        of = {"form": "adversarial", "alpha": 0.5, "beta": 0.1, "sweeps": 1, "lr": 1e-3} | settings
        self.blocks, self.alpha, self.beta, self.sweeps = blocks, of["alpha"], of["beta"], of["sweeps"]
        nudges = [1 - self.alpha, self.alpha]
        self.up, self.down = nudges if of["form"] == "adversarial" else reversed(nudges)
        self.optimiser = AdamW(weights_of(blocks), of["lr"], weight_decay=1e-3)

    def step(self, x: Array, y: Labels) -> float:
        last, n = len(self.blocks) - 1, len(y)
        h = x
        means = [h := block.forward(h) for block in self.blocks[:-1]]
        first_loss = None
        for _ in range(self.sweeps):
            for block, below in zip(self.blocks, [x, *(mean.copy() for mean in means)], strict=True):
                block.forward(below)
            loss, slope = cross_entropy(linear(self.blocks[-1].x, self.blocks[-1].W, self.blocks[-1].b), y)
            first_loss = loss if first_loss is None else first_loss
            differences = [-self.beta * slope * n]
            for k in reversed(range(last)):
                V = self.blocks[k + 1].through(self.lifted(k + 1, differences[0])).reshape(means[k].shape)
                p, m = self.states(k, self.up * V), self.states(k, -self.down * V)
                means[k] = self.alpha * p + (1 - self.alpha) * m
                differences.insert(0, p - m)
        gradients = []
        for k, (block, d) in enumerate(zip(self.blocks, differences, strict=True)):
            block.x = x if k == 0 else means[k - 1]
            block.through(self.lifted(k, d))
            gradients += [-g / (self.beta * n) for g in block.gradients]
        self.optimiser.step(gradients)
        assert first_loss is not None
        return first_loss

    def states(self, k: int, nudge: Array) -> Array:
        """s(P(W h + b) + nudge), of the block's last forward pass."""
        block = self.blocks[k]
        a = (max_pool(block.a) if block.pool else block.a) + nudge
        return np.asarray(np.tanh(a) if block.act == "tanh" else np.maximum(a, 0))

    def lifted(self, k: int, d: Array) -> Array:
        """A difference back at the maxima of P, as one by the sums before pooling."""
        block = self.blocks[k]
        return max_pool_gradient(block.a, d) if block.pool else d


@pytest.mark.parametrize("depth", [1, 3])
def test_claims_follow_depth(depth: int) -> None:
    subject = Subject(DualPropagation, small_task(MLP, {"width": 32, "depth": depth}))
    for check in ("reverse-mode", "passes", "weight-transport", "waiting"):
        CHECKS[check](subject)
