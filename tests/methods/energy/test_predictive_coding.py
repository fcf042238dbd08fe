"""Predictive coding against backprop's gradient, the energy differentiated by autograd, and its own limits."""

import copy
from collections.abc import Callable
from itertools import pairwise
from typing import Any

import pytest
import torch
import torch.nn.functional as F
from bench.methods.energy.predictive_coding import PredictiveCoding
from torch import Tensor

from bench import Batch, Progress, Task
from bench.api.artifact import Lines
from bench.api.errors import ConfigError
from bench.api.task import Facts
from bench.audit.passes import passes
from bench.audit.reverse_mode import reach
from bench.measure.retained import retained_bytes
from bench.nets.mlp import MLP
from bench.testing.subject import small_task
from tests.methods.gradients import watched
from tests.methods.local.oracles import START

NETS: dict[str, dict[str, Any]] = {
    "mlp": {"width": 12, "depth": 3, "activation": "tanh"},
    "cnn": {"width": 3, "depth": 3},
}
ENERGIES = ("squared-error", "cross-entropy")
EXACT = {"prediction": "fixed", "state_lr": 1.0, "momentum": 0.0}
SETTLED = {"steps": 250, "state_lr": 0.25, "momentum": 0.6}
Make = Callable[..., Any]


def made(
    make_method: Make, net: str = "mlp", net_settings: dict[str, Any] | None = None, **more: Any
) -> PredictiveCoding:
    method: PredictiveCoding = make_method(
        "predictive-coding", net=net, net_settings=NETS[net] | (net_settings or {}), **more
    )
    method.net.double()
    return method


@pytest.fixture
def batch64(batch: Batch) -> Batch:
    return Batch(batch.x.double(), batch.y)


def loss_of(energy: str, scores: Tensor, y: Tensor) -> Tensor:
    if energy == "cross-entropy":
        return F.cross_entropy(scores, y)
    return (scores - F.one_hot(y, 10)).square().sum() / (2 * len(y))


def backprop(method: PredictiveCoding, batch: Batch) -> list[Tensor]:
    loss = loss_of(method.config.energy, method.net(batch.x), batch.y)
    return list(torch.autograd.grad(loss, list(method.net.parameters())))


def gradients(method: PredictiveCoding, batch: Batch, progress: Progress = START) -> list[Tensor]:
    """Those that the first step of the optimiser sees."""
    weights = [p.detach().clone() for p in method.net.parameters()]
    seen = watched([method.optimizer])
    method.train_step(batch, progress)
    with torch.no_grad():
        for p, w in zip(method.net.parameters(), weights, strict=True):
            p.copy_(w)
    return [seen[id(p)] for p in method.net.parameters()]


@pytest.mark.parametrize("net", NETS)
@pytest.mark.parametrize("energy", ENERGIES)
@pytest.mark.parametrize("output", ["clamped", "positive", "negative"])
def test_fixed_predictions_give_backprops_whole_update(
    make_method: Make, batch64: Batch, net: str, energy: str, output: str
) -> None:
    """Loss, gradients and the step of every weight. A state step too few, h or 1 / beta of the wrong sign or size,
    gradients from relaxed inputs, a batch mean in place of an example's own, maxima put elsewhere: all show.
    """
    method = made(make_method, net, energy=energy, output=output, beta=0.3, steps=3, **EXACT)
    twin = copy.deepcopy(method.net)
    optimizer = torch.optim.AdamW(twin.parameters(), lr=method.config.lr, weight_decay=method.config.weight_decay)
    expected = loss_of(energy, twin(batch64.x), batch64.y)
    expected.backward()
    optimizer.step()
    seen = watched([method.optimizer])
    loss = method.train_step(batch64, START)["loss"]
    torch.testing.assert_close(loss, expected.detach())
    for p, q in zip(method.net.parameters(), twin.parameters(), strict=True):
        torch.testing.assert_close(seen[id(p)], q.grad, rtol=1e-6, atol=1e-9)
        torch.testing.assert_close(p, q, rtol=1e-6, atol=1e-9)


def test_one_step_too_few_does_not_reach_the_first_layer(make_method: Make, batch64: Batch) -> None:
    method = made(make_method, steps=2, **EXACT)
    first, *later = gradients(method, batch64)
    assert first.count_nonzero() == 0
    assert all(g.count_nonzero() > 0 for g in later[1:])


class Slow:
    """The relaxation by autograd: E of all examples written down, differentiated by states and by weights."""

    def __init__(self, method: PredictiveCoding, batch: Batch, beta: float) -> None:
        self.net, self.config = copy.deepcopy(method.net), method.config
        self.optimizer = torch.optim.AdamW(
            self.net.parameters(), lr=self.config.lr, weight_decay=self.config.weight_decay
        )
        self.x, self.beta, self.n = batch.x, beta, len(batch.y)
        self.states, h = list[Tensor](), batch.x
        with torch.no_grad():
            for block in self.net.blocks[:-1]:
                self.states.append(h := block(h))
            u = self.net.blocks[-1](h)
            u = u.softmax(1) if self.config.energy == "cross-entropy" else u
            moves = self.config.nudge == "target"
            self.h, self.weight = u - (beta if moves else 1) * (u - F.one_hot(batch.y, 10)), 1 if moves else beta
        self.states = [x.clone().requires_grad_() for x in self.states]
        self.velocity = [torch.zeros_like(x) for x in self.states]

    def energy(self) -> Tensor:
        total = torch.zeros((), dtype=torch.float64)
        below = [self.x, *self.states]
        for block, h, x in zip(self.net.blocks, below, self.states, strict=False):
            total = total + 0.5 * ((x - block(h)) ** 2).sum()
        scores = self.net.blocks[-1](below[-1])
        if self.config.energy == "cross-entropy":
            return total - self.weight * (self.h * scores.log_softmax(1)).sum()
        return total + self.weight * 0.5 * ((self.h - scores) ** 2).sum()

    def move(self, slopes: tuple[Tensor, ...]) -> None:
        for x, v, g in zip(self.states, self.velocity, slopes, strict=True):
            v.mul_(self.config.momentum).add_(g)
            x.data.sub_(v, alpha=self.config.state_lr)

    def learn(self) -> None:
        self.optimizer.zero_grad()
        (self.energy() / (self.beta * self.n)).backward(inputs=list(self.net.parameters()))

    def train(self) -> None:
        for _ in range(self.config.steps):
            slopes = torch.autograd.grad(self.energy(), self.states)
            if self.config.learning == "incremental":
                self.learn()
                self.optimizer.step()
            self.move(slopes)
        if self.config.learning == "equilibrium":
            self.learn()
            self.optimizer.step()


@pytest.mark.parametrize("net", NETS)
@pytest.mark.parametrize("energy", ENERGIES)
@pytest.mark.parametrize("learning", ["equilibrium", "incremental"])
@pytest.mark.parametrize(("momentum", "nudge"), [(0.0, "target"), (0.4, "energy")])
def test_relaxation_is_that_of_the_energy(
    make_method: Make, batch64: Batch, net: str, energy: str, learning: str, momentum: float, nudge: str
) -> None:
    """The step of every weight, after relaxations of batches of two sizes: memory of one must not enter the other."""
    method = made(
        make_method, net, energy=energy, learning=learning, output="negative", nudge=nudge, beta=0.4, steps=5,
        state_lr=0.2, momentum=momentum, lr=1e-2,
    )  # fmt: skip
    slow: Slow | None = None
    for few in (batch64, Batch(batch64.x[:7], batch64.y[:7]), batch64):
        before = slow
        slow = Slow(method, few, -0.4)
        if before is not None:
            slow.optimizer.load_state_dict(before.optimizer.state_dict())
        slow.train()
        method.train_step(few, START)
        for p, q in zip(method.net.parameters(), slow.net.parameters(), strict=True):
            torch.testing.assert_close(p, q, rtol=1e-7, atol=1e-9)


def off(found: list[Tensor], expected: list[Tensor]) -> float:
    difference = sum(float((f - e).square().sum()) for f, e in zip(found, expected, strict=True))
    return (difference / sum(float(e.square().sum()) for e in expected)) ** 0.5


def rescaled(method: PredictiveCoding, batch: Batch) -> list[Tensor]:
    """Backprop of (1 + H sum J J^T)^-1 (y - u) in place of y - u, example by example."""
    total = [torch.zeros_like(p) for p in method.net.parameters()]
    for image, label in zip(batch.x, batch.y, strict=True):
        hs, h = list[Tensor](), image[None]
        for block in method.net.blocks:
            hs.append(h := block(h))
        scores = hs[-1][0]
        J = [torch.stack([torch.autograd.grad(s, h, retain_graph=True)[0][0] for s in scores]) for h in hs[:-1]]
        u, H = scores.detach(), torch.eye(10, dtype=torch.float64)
        if method.config.energy == "cross-entropy":
            u = u.softmax(0)
            H = torch.diag(u) - torch.outer(u, u)
        e = torch.linalg.solve(torch.eye(10) + H @ sum(j @ j.T for j in J), F.one_hot(label, 10) - u)
        for t, g in zip(total, torch.autograd.grad(scores, list(method.net.parameters()), -e), strict=True):
            t += g / len(batch.y)
    return total


@pytest.mark.parametrize("energy", ENERGIES)
@pytest.mark.parametrize("nudge", ["energy", "target"])
def test_small_nudges_approach_their_limit_by_their_order(
    make_method: Make, batch64: Batch, energy: str, nudge: str
) -> None:
    """Halving beta halves the distance for one sign, and quarters it for the mean of both: from backprop's gradient,
    or where nudging moves the target from that of the rescaled error.
    """
    one, both = list[float](), list[float]()
    for beta in (0.1, 0.05, 0.025):
        method = made(make_method, energy=energy, output="centred", nudge=nudge, beta=beta, **SETTLED)
        limit = backprop(method, batch64) if nudge == "energy" else rescaled(method, batch64)
        plus = gradients(method, batch64, Progress(0, 2, 0))
        minus = gradients(method, batch64, Progress(1, 2, 0))
        one.append(off(plus, limit))
        both.append(off([(a + b) / 2 for a, b in zip(plus, minus, strict=True)], limit))
    for bigger, smaller in pairwise(one):
        assert bigger / smaller == pytest.approx(2, abs=0.2)
    for bigger, smaller in pairwise(both):
        assert bigger / smaller == pytest.approx(4, abs=0.4)
    assert both[-1] < one[-1] < 0.1


@pytest.mark.parametrize(("output", "betas"), [("clamped", (1, 1)), ("positive", (0.3, 0.3)), ("centred", (0.3, -0.3))])
@pytest.mark.parametrize("energy", ENERGIES)
def test_output_is_nudged_as_asked(
    make_method: Make, batch64: Batch, output: str, betas: tuple[float, float], energy: str
) -> None:
    method = made(make_method, output=output, beta=0.3, energy=energy, lr=1e-30, weight_decay=0.0)
    with torch.no_grad():
        u = method.net(batch64.x)
    u = u.softmax(1) if energy == "cross-entropy" else u
    for step, beta in enumerate(betas):
        method.train_step(batch64, Progress(step, 2, 0))
        assert method.relaxation is not None
        expected = u + beta * (F.one_hot(batch64.y, 10) - u)
        torch.testing.assert_close(method.relaxation.h, expected, rtol=1e-9, atol=1e-12)


@pytest.mark.parametrize("net", NETS)
@pytest.mark.parametrize("energy", ENERGIES)
def test_energy_falls_and_is_shown(make_method: Make, batch64: Batch, net: str, energy: str) -> None:
    """The artifact's last energies are those that autograd's relaxation ends at, and their sum never rises."""
    method = made(make_method, net, energy=energy, steps=30, state_lr=0.05)
    slow = Slow(method, batch64, 1.0)
    start = float(slow.energy().detach())
    for _ in range(30):
        slow.move(torch.autograd.grad(slow.energy(), slow.states))
    (shown,) = method.artifacts(batch64, torch.Generator())
    assert isinstance(shown, Lines)
    energies = torch.as_tensor(shown.y)[0]
    assert energies.shape == (len(method.net.blocks), 30) == (len(shown.lines), len(shown.x))
    total = torch.cat([torch.tensor([start / 16]), energies.sum(0)])
    assert (total.diff() < 0).all()
    torch.testing.assert_close(float(total[-1]), float(slow.energy().detach()) / 16)


VARIANTS: tuple[dict[str, Any], ...] = (
    {},
    {"momentum": 0.3, "output": "centred"},
    {"learning": "incremental", "energy": "cross-entropy"},
    {"prediction": "fixed"},
)


@pytest.mark.parametrize("net", NETS)
@pytest.mark.parametrize("settings", VARIANTS)
def test_claims_are_measured(make_method: Make, batch: Batch, net: str, settings: dict[str, Any]) -> None:
    """Nothing is kept for a way back, nothing goes back, and each step of the states is a pass."""
    method = make_method("predictive-coding", net=net, net_settings=NETS[net], steps=5, **settings)
    parameters = list(method.net.parameters())
    assert retained_bytes(lambda: method.train_step(batch, START), parameters) == 0
    assert reach(method, lambda: method.train_step(batch, START)) == method.claims().reverse_mode == "none"
    counted = passes(method, lambda: method.train_step(batch, START))
    assert counted == method.claims().forward_passes
    assert counted == (1 if "prediction" in settings else 5 if "learning" in settings else 6)
    assert passes(method, lambda: method.predict(batch.x), images=16) == method.claims().inference_passes == 1


def test_float32_steps_are_those_of_float64(make_method: Make, batch: Batch, batch64: Batch) -> None:
    """Memory is made anew where numbers become longer."""
    method = make_method("predictive-coding", net="mlp", net_settings=NETS["mlp"])
    short = gradients(method, batch)
    method.net.double()
    method.optimizer.state.clear()
    for one, other in zip(short, gradients(method, batch64), strict=True):
        torch.testing.assert_close(one.double(), other, rtol=1e-3, atol=1e-6)


@pytest.mark.parametrize("net", NETS)
def test_bfloat16_stays_near(make_method: Make, batch: Batch, net: str) -> None:
    method = make_method("predictive-coding", net=net, net_settings=NETS[net], momentum=0.3)
    exact = torch.cat([g.flatten() for g in gradients(method, batch)])
    with torch.autocast("cpu", dtype=torch.bfloat16):
        cast = torch.cat([g.flatten() for g in gradients(method, batch)])
    assert cast.dtype == torch.float32
    assert float((cast - exact).norm() / exact.norm()) < 0.05


def test_what_cannot_be_done_is_refused(task: Task) -> None:
    facts = Facts("cpu", 1, 32)
    settings = PredictiveCoding.Config(prediction="fixed", learning="incremental")
    with pytest.raises(ConfigError, match="learning=equilibrium"):
        PredictiveCoding.refuse(task, settings, facts)
    flat = small_task(MLP, {"depth": 0})
    assert "no hidden block" in (PredictiveCoding.refuse(flat, PredictiveCoding.Config(), facts) or "")
    assert PredictiveCoding.refuse(task, PredictiveCoding.Config(), facts) is None
