"""Equilibrium propagation against the primitive function differentiated by autograd, and the gradient of its
loss at the free fixed point.
"""

import copy
from collections.abc import Callable
from dataclasses import replace
from itertools import pairwise, product
from typing import Any

import pytest
import torch
import torch.nn.functional as F
from bench.methods.energy.equilibrium_propagation import EquilibriumPropagation
from torch import Tensor, nn

from bench import Batch, Task
from bench.api.artifact import Lines
from bench.api.task import Facts
from bench.audit.passes import passes
from bench.audit.reverse_mode import reach
from bench.measure.retained import retained_bytes
from bench.nets.cnn import CNN
from bench.nets.mlp import MLP
from bench.testing.subject import small_task
from tests.methods.gradients import watched
from tests.methods.local.oracles import START

ESTIMATORS = ("one-sided", "random-sign", "centred")
LOSSES = ("mse", "ce")
ORDERS = ("synchronous", "asynchronous")
SETTLED = {"free_steps": 60, "nudged_steps": 60}
Make = Callable[..., Any]


def made(make_method: Make, depth: int = 3, shift: float = 0.6, **more: Any) -> EquilibriumPropagation:
    """With biases that put most states between 0 and 1, where something can be learnt."""
    method: EquilibriumPropagation = make_method(
        "equilibrium-propagation", net_settings={"width": 12, "depth": depth}, **more
    )
    method.net.double()
    with torch.no_grad():
        for layer in linears(method.net):
            layer.weight.mul_(0.7)
            layer.bias.add_(shift)
    return method


def linears(net: nn.Module) -> list[nn.Linear]:
    return [m for m in net.modules() if isinstance(m, nn.Linear)]


@pytest.fixture
def batch64(batch: Batch) -> Batch:
    return Batch(batch.x.double() / 2, batch.y)


class Slow:
    """Phi of all examples written down, differentiated by states and by weights."""

    def __init__(self, method: EquilibriumPropagation, batch: Batch) -> None:
        self.config, self.net = method.config, copy.deepcopy(method.net)
        self.layers = linears(self.net)
        self.K = len(self.layers) - (self.config.loss == "ce")
        self.x, self.y, self.labels = batch.x.flatten(1), F.one_hot(batch.y, 10).double(), batch.y

    def zeros(self) -> list[Tensor]:
        return [torch.zeros(len(self.x), layer.out_features, dtype=torch.float64) for layer in self.layers[: self.K]]

    def phi(self, states: list[Tensor]) -> Tensor:
        below = [self.x, *states]
        products = [
            (s * (h @ layer.weight.T + layer.bias)).sum()
            for s, h, layer in zip(states, below, self.layers, strict=False)
        ]
        return torch.stack(products).sum()

    def loss(self, states: list[Tensor]) -> Tensor:
        if self.config.loss == "mse":
            return 0.5 * (states[-1] - self.y).square().sum()
        readout = self.layers[-1]
        return F.cross_entropy(states[-1] @ readout.weight.T + readout.bias, self.labels, reduction="sum")

    def relaxed(self, states: list[Tensor], steps: int, beta: float, *, graph: bool = False) -> list[Tensor]:
        layers = range(self.K)
        at_once = graph or self.config.relaxation == "synchronous"  # with a graph states must not hang on each other
        turns = [layers] if at_once else [layers[::2], layers[1::2]]
        for _, turn in product(range(steps), turns):
            leaves = [s if graph and s.requires_grad else s.detach().requires_grad_() for s in states]
            slopes = torch.autograd.grad(self.phi(leaves) - beta * self.loss(leaves), leaves, create_graph=graph)
            states = [
                (1 + F.hardtanh(slopes[k] - 1)) / 2 if k in turn else s
                for k, s in enumerate(leaves if graph else states)
            ]
        return states

    def gradient(self, beta: float, *, centred: bool) -> list[Tensor]:
        """The difference of what autograd gives for two relaxations, by all weights."""
        start = self.relaxed(self.zeros(), self.config.free_steps, 0.0)
        ends = [(beta, 1.0), (-beta if centred else 0.0, -1.0)]
        total = torch.zeros((), dtype=torch.float64)
        for nudge, sign in ends:
            steps = self.config.nudged_steps if nudge else 0
            states = [s.detach() for s in self.relaxed(start, steps, nudge)]
            total = total + sign * (self.phi(states) - nudge * self.loss(states))
        width = 2 * beta if centred else beta
        return list(torch.autograd.grad(-total / (width * len(self.x)), list(self.net.parameters())))

    def exact(self) -> list[Tensor]:
        """The gradient of the mean loss at the free fixed point, through all of a long relaxation."""
        states = self.relaxed(self.zeros(), 60, 0.0, graph=True)
        return list(torch.autograd.grad(self.loss(states) / len(self.x), list(self.net.parameters())))


def gradients(method: EquilibriumPropagation, batch: Batch) -> list[Tensor]:
    """Those of a step, which is then taken back."""
    weights = [p.detach().clone() for p in method.net.parameters()]
    seen = watched([method.optimizer])
    method.train_step(batch, START)
    with torch.no_grad():
        for p, w in zip(method.net.parameters(), weights, strict=True):
            p.copy_(w)
    return [seen[id(p)] for p in method.net.parameters()]


def sign_of(method: EquilibriumPropagation) -> float:
    """Of the next mini-batch's beta."""
    if method.config.estimator != "random-sign":
        return 1.0
    noise = torch.Generator()
    noise.set_state(method.noise.get_state())
    return 1.0 if int(torch.empty(1, dtype=torch.int64).random_(-(2**63), None, generator=noise)) & 1 == 0 else -1.0


@pytest.mark.parametrize("estimator", ESTIMATORS)
@pytest.mark.parametrize("loss", LOSSES)
@pytest.mark.parametrize("order", ORDERS)
@pytest.mark.parametrize("depth", [1, 3])
def test_relaxation_is_that_of_the_primitive_function(
    make_method: Make, batch64: Batch, estimator: str, loss: str, order: str, depth: int
) -> None:
    """Gradients of all weights after few steps, for batches of two sizes: memory of one must not enter the other.

    W in place of W^T, states of the wrong phase or turn, a nudge of the wrong sign or place, a wrong width show.
    """
    method = made(
        make_method, depth, estimator=estimator, loss=loss, relaxation=order, beta=0.3, free_steps=4, nudged_steps=5
    )
    for few in (batch64, Batch(batch64.x[:7], batch64.y[:7])):
        slow = Slow(method, few)
        expected = slow.gradient(0.3 * sign_of(method), centred=estimator == "centred")
        free = slow.relaxed(slow.zeros(), 4, 0.0)
        seen = watched([method.optimizer])
        found = method.train_step(few, START)["loss"]
        torch.testing.assert_close(found, slow.loss(free).detach() / len(few.y))
        for p, g in zip(method.net.parameters(), expected, strict=True):
            assert g.count_nonzero() > 0
            torch.testing.assert_close(seen[id(p)], g, rtol=1e-8, atol=1e-10)


def test_signs_are_drawn_alike_often(make_method: Make, batch64: Batch) -> None:
    """Both signs' estimates appear, and nothing else."""
    method = made(make_method, estimator="random-sign", free_steps=4, nudged_steps=3)
    slow = Slow(method, batch64)
    both = [slow.gradient(sign * method.config.beta, centred=False)[0] for sign in (1, -1)]
    drawn = [gradients(method, batch64)[0] for _ in range(40)]
    counts = [sum(torch.allclose(g, one, rtol=1e-7) for g in drawn) for one in both]
    assert sum(counts) == 40
    assert min(counts) >= 10


def off(found: list[Tensor], expected: list[Tensor]) -> float:
    difference = sum(float((f - e).square().sum()) for f, e in zip(found, expected, strict=True))
    return (difference / sum(float(e.square().sum()) for e in expected)) ** 0.5


@pytest.mark.parametrize("loss", LOSSES)
def test_estimates_approach_the_gradient_of_the_relaxed_loss_by_their_order(
    make_method: Make, batch64: Batch, loss: str
) -> None:
    """Halving beta halves the error of one-sided and quarters that of centred. Two units a layer are clipped whatever
    the nudge; a state that is only at times would disturb both orders.
    """
    errors: dict[str, list[float]] = {"one-sided": [], "centred": []}
    for beta, estimator in product((0.2, 0.1, 0.05), errors):
        method = made(make_method, shift=1.0, estimator=estimator, loss=loss, beta=beta, **SETTLED)
        with torch.no_grad():
            for layer in linears(method.net)[:-1]:
                layer.bias[:2] = torch.tensor([-4.0, 6.0])
        errors[estimator].append(off(gradients(method, batch64), Slow(method, batch64).exact()))
    for bigger, smaller in pairwise(errors["one-sided"]):
        assert bigger / smaller == pytest.approx(2, abs=0.2)
    for bigger, smaller in pairwise(errors["centred"]):
        assert bigger / smaller == pytest.approx(4, abs=0.5)
    assert errors["centred"][-1] < errors["one-sided"][-1] < 0.1


def test_exact_gradient_is_that_of_finite_differences(make_method: Make, batch64: Batch) -> None:
    """The oracle of orders, held against the loss at free fixed points of other weights."""
    method = made(make_method, loss="mse")
    slow = Slow(method, batch64)
    exact = slow.exact()
    generator = torch.Generator().manual_seed(0)
    weights = list(slow.net.parameters())
    v = [torch.randn(p.shape, generator=generator, dtype=p.dtype) for p in weights]
    losses = []
    for step in (1e-5, -2e-5):
        with torch.no_grad():
            for p, d in zip(weights, v, strict=True):
                p.add_(d, alpha=step)
        losses.append(float(slow.loss(slow.relaxed(slow.zeros(), 60, 0.0)).detach()) / len(batch64.y))
    slope = sum(float((g * d).sum()) for g, d in zip(exact, v, strict=True))
    assert (losses[0] - losses[1]) / 2e-5 == pytest.approx(slope, rel=1e-4)


@pytest.mark.parametrize("order", ORDERS)
def test_energy_falls_and_is_shown(make_method: Make, batch64: Batch, order: str) -> None:
    """|s|^2 - Phi in the free phase, with weights as large as they come for turns and damped ones for all at once."""
    method = made(make_method, relaxation=order, free_steps=20, nudged_steps=5)
    if order == "asynchronous":
        with torch.no_grad():
            for layer in linears(method.net):
                layer.weight.mul_(6)
    (shown,) = method.artifacts(batch64, torch.Generator())
    assert isinstance(shown, Lines)
    energies = torch.as_tensor(shown.y)[0]
    assert energies.shape == (4, 25) == (len(shown.lines), len(shown.x))
    total = torch.cat([torch.zeros(1), energies[:, :20].sum(0)])
    assert (total.diff() < 1e-12).all()
    assert float(total[-1]) < float(total[1])
    slow = Slow(method, batch64)
    states = slow.relaxed(slow.zeros(), 20, 0.0)
    expected = (sum(s.square().sum() for s in states) - slow.phi(states)) / 16
    torch.testing.assert_close(total[-1], expected.detach())


@pytest.mark.parametrize("loss", LOSSES)
def test_both_orders_settle_where_scores_and_states_agree(make_method: Make, batch64: Batch, loss: str) -> None:
    """Predictions are those of the free fixed point: with mse the last states are the scores' hard sigmoid."""
    scores = []
    for order in ORDERS:
        method = made(make_method, loss=loss, relaxation=order, **SETTLED)
        scores.append(method.predict(batch64.x))
        slow = Slow(method, batch64)
        states = slow.relaxed(slow.zeros(), 60, 0.0)
        if loss == "mse":
            torch.testing.assert_close((1 + F.hardtanh(scores[-1] - 1)) / 2, states[-1])
        else:
            readout = slow.layers[-1]
            torch.testing.assert_close(scores[-1], (states[-1] @ readout.weight.T + readout.bias).detach())
    torch.testing.assert_close(*scores)


@pytest.mark.parametrize("estimator", ESTIMATORS)
@pytest.mark.parametrize("loss", LOSSES)
@pytest.mark.parametrize("order", ORDERS)
@pytest.mark.parametrize("depth", [1, 2])
def test_claims_are_measured(
    make_method: Make, batch: Batch, estimator: str, loss: str, order: str, depth: int
) -> None:
    """Nothing is kept for a way back, nothing goes back, and each step of a phase is a pass, in predictions too."""
    settings = {"estimator": estimator, "loss": loss, "relaxation": order, "free_steps": 7, "nudged_steps": 3}
    method = make_method("equilibrium-propagation", net_settings={"width": 12, "depth": depth}, **settings)
    claims = method.claims()
    assert retained_bytes(lambda: method.train_step(batch, START), list(method.net.parameters())) == 0
    assert reach(method, lambda: method.train_step(batch, START)) == claims.reverse_mode == "none"
    assert passes(method, lambda: method.train_step(batch, START)) == claims.forward_passes
    assert passes(method, lambda: method.predict(batch.x), images=16) == claims.inference_passes
    if loss == "mse":
        assert claims.forward_passes == (13 if estimator == "centred" else 10)
        assert claims.inference_passes == 8


@pytest.mark.parametrize("loss", LOSSES)
def test_bfloat16_leaves_the_relaxation_alone(make_method: Make, batch: Batch, loss: str) -> None:
    """Small differences of states would be lost in it."""
    method = make_method("equilibrium-propagation", net_settings={"width": 12, "depth": 3}, loss=loss)
    exact = torch.cat([g.flatten() for g in gradients(method, batch)])
    with torch.autocast("cpu", dtype=torch.bfloat16):
        cast = torch.cat([g.flatten() for g in gradients(method, batch)])
    assert cast.dtype == torch.float32
    assert float((cast - exact).norm() / exact.norm()) < 0.02


def test_what_cannot_relax_is_refused(task: Task) -> None:
    facts, config = Facts("cpu", 1, 32), EquilibriumPropagation.Config()
    assert EquilibriumPropagation.refuse(task, config, facts) is None
    assert "no hidden block" in (EquilibriumPropagation.refuse(small_task(MLP, {"depth": 0}), config, facts) or "")
    assert "relaxes vectors" in (EquilibriumPropagation.refuse(replace(task, net=CNN), config, facts) or "")
