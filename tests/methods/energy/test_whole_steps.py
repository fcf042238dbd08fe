"""Whole steps of predictive coding and equilibrium propagation, beside their equations in numpy, weight for weight."""

from collections.abc import Callable
from typing import Any

import numpy as np
import pytest

from tests.methods.rederived import AdamW, Array, Block, Labels, cross_entropy, one_hot, softmax
from tests.methods.whole_steps import (
    N_CLASSES,
    ON,
    assert_weights,
    batches,
    colour_task,
    in_double,
    number,
    numpy_blocks,
    train,
)

Make = Callable[..., Any]


class Coding:
    """E = sum 1/2 |x_l - f_l(x_{l-1})|^2 + E_L, relaxed by x <- x - eta dE/dx (Whittington, Bogacz 2017; PCX)."""

    def __init__(self, blocks: list[Block], **settings: Any) -> None:
        defaults = {"energy": "squared-error", "learning": "equilibrium", "prediction": "moving", "nudge": "target"}
        self.of = defaults | {"state_lr": 0.1, "momentum": 0.0, "steps": 8, "beta": 1.0} | settings
        self.blocks = blocks
        lr, decay = settings.get("lr", 1e-3), settings.get("weight_decay", 1e-3)
        self.optimiser = AdamW([w for block in blocks for w in block.weights], lr, weight_decay=decay)

    def step(self, x: Array, y: Labels, sign: float = 1.0) -> float:
        of, beta = self.of, sign * self.of["beta"]
        *states, scores = self.forward(x)
        u = softmax(scores) if of["energy"] == "cross-entropy" else scores
        wanted = one_hot(y, scores.shape[1])
        loss = (
            cross_entropy(scores, y)[0] if of["energy"] == "cross-entropy" else 0.5 * ((u - wanted) ** 2).sum(1).mean()
        )
        self.h = u - beta * (u - wanted) if of["nudge"] == "target" else wanted
        self.weight = 1.0 if of["nudge"] == "target" else beta
        self.x, self.states, self.first = x, states, [s.copy() for s in states]
        v = [np.zeros_like(s) for s in states]
        for _ in range(of["steps"]):
            slopes = self.slopes()
            for s, velocity, slope in zip(self.states, v, slopes, strict=True):
                velocity[...] = of["momentum"] * velocity + slope
                s -= of["state_lr"] * velocity
            if of["learning"] == "incremental":
                self.learn(beta)
        if of["learning"] == "equilibrium":
            self.slopes()
            self.learn(beta)
        return float(loss)

    def forward(self, x: Array) -> list[Array]:
        return [x := block.forward(x) for block in self.blocks]

    def slopes(self) -> list[Array]:
        """dE/dx of all states; leaves dE/dW in the blocks. Fixed predictions: all but e stays as it was."""
        below = [self.x, *(self.states if self.of["prediction"] == "moving" else self.first)]
        mu = [block.forward(h) for block, h in zip(self.blocks, below, strict=True)]
        out = softmax(mu[-1]) if self.of["energy"] == "cross-entropy" else mu[-1]
        e = [s - m for s, m in zip(self.states, mu, strict=False)]
        by_mu = [*(-part for part in e), self.weight * (out - self.h)]
        down = [block.backward(delta) for block, delta in zip(self.blocks, by_mu, strict=True)]
        return [part + back for part, back in zip(e, down[1:], strict=True)]

    def learn(self, beta: float) -> None:
        n = len(self.x)
        self.optimiser.step([g / (beta * n) for block in self.blocks for g in block.gradients])


CODING: dict[str, dict[str, Any]] = {
    "defaults": {},
    "incremental": {"learning": "incremental"},
    "cross-entropy with momentum": {
        "energy": "cross-entropy",
        "momentum": 0.35,
        "state_lr": 0.3,
        "lr": 3e-3,
        "weight_decay": 0.1,
    },
    "fixed": {"prediction": "fixed", "state_lr": 0.5, "steps": 3},
    "centred": {"output": "centred"},
    "negative, energy weighted": {"output": "negative", "nudge": "energy", "beta": 0.3, "steps": 4},
}


@pytest.mark.parametrize("net", ON)
@pytest.mark.parametrize("settings", CODING.values(), ids=CODING)
def test_predictive_coding(make_method: Make, net: str, settings: dict[str, Any]) -> None:
    """Catches adam for adamw, weights that step before the states' last step, or in iPC from states that have moved,
    1 / beta left out, a nudge of the wrong sign in the first or second batch, W f(x) for s(W x + b), another
    number of steps, a step size or decay that is not the setting's.
    """
    method = in_double(make_method("predictive-coding", task=colour_task(net), **settings))
    output = settings.get("output", "clamped")
    more = {} if output == "clamped" else {"beta": settings.get("beta", 0.5)}
    slow = Coding(numpy_blocks(method.net), **{k: v for k, v in settings.items() if k != "output"} | more)
    data = batches(3)
    found = train(method, data)
    for k, (x, y) in enumerate(data):
        away = output == "negative" or (output == "centred" and k == 1)
        loss = slow.step(number(x), y.numpy(), -1.0 if away else 1.0)
        assert found[k]["loss"] == pytest.approx(loss, rel=1e-9)
    assert_weights(method.net, slow.blocks)


class Propagation:
    """Phi = sum s_l . (W_l s_{l-1} + b_l), s <- sigma(dPhi/ds - beta dl/ds), sigma(a) = (1 + hardtanh(a - 1)) / 2."""

    def __init__(self, blocks: list[Block], **settings: Any) -> None:
        defaults = {"estimator": "centred", "loss": "mse", "relaxation": "asynchronous"}
        self.of = defaults | {"beta": 1.0, "free_steps": 15, "nudged_steps": 5} | settings
        self.blocks = blocks
        self.K = len(blocks) - (self.of["loss"] == "ce")  # layers that relax
        lr, decay = settings.get("lr", 3e-3), settings.get("weight_decay", 1e-3)
        self.optimiser = AdamW([w for block in blocks for w in block.weights], lr, weight_decay=decay)

    def relaxed(self, states: list[Array], steps: int, beta: float) -> list[Array]:
        states = [s.copy() for s in states]
        every = list(range(self.K))
        turns = [every] if self.of["relaxation"] == "synchronous" else [every[::2], every[1::2]]
        for _ in range(steps):
            for turn in turns:
                new = {k: self.drive(states, k, beta) for k in turn}
                for k, a in new.items():
                    states[k] = (1 + np.clip(a - 1, -1, 1)) / 2
        return states

    def drive(self, states: list[Array], k: int, beta: float) -> Array:
        below = states[k - 1] if k else self.x
        a = below @ self.blocks[k].W.T + self.blocks[k].b
        if k + 1 < self.K:
            a = a + states[k + 1] @ self.blocks[k + 1].W
        elif self.of["loss"] == "mse":
            a = a - beta * (states[k] - self.y)
        else:
            a = a - beta * (self.answer(states) - self.y) @ self.blocks[-1].W
        return np.asarray(a)

    def answer(self, states: list[Array]) -> Array:
        return softmax(states[-1] @ self.blocks[-1].W.T + self.blocks[-1].b)

    def by_weights(self, states: list[Array], beta: float) -> list[Array]:
        """d(Phi - beta l)/d weights, summed over examples."""
        below, of = [self.x, *states], []
        for k in range(self.K):
            of += [states[k].T @ below[k], states[k].sum(0)]
        if self.of["loss"] == "ce":
            e = self.answer(states) - self.y
            of += [-beta * e.T @ states[-1], -beta * e.sum(0)]
        return of

    def step(self, x: Array, y: Labels) -> None:
        self.x, self.y, beta = x.reshape(len(x), -1), one_hot(y, N_CLASSES), self.of["beta"]
        zeros = [np.zeros((len(x), len(block.W))) for block in self.blocks[: self.K]]
        free = self.relaxed(zeros, self.of["free_steps"], 0.0)
        nudged = self.by_weights(self.relaxed(free, self.of["nudged_steps"], beta), beta)
        if self.of["estimator"] == "centred":
            other = self.by_weights(self.relaxed(free, self.of["nudged_steps"], -beta), -beta)
            width = 2 * beta
        else:
            other, width = self.by_weights(free, 0.0), beta
        self.optimiser.step([-(a - b) / (width * len(x)) for a, b in zip(nudged, other, strict=True)])


PROPAGATION: dict[str, dict[str, Any]] = {
    "defaults": {},
    "softmax": {"loss": "ce", "lr": 1e-2, "weight_decay": 0.1},
    "one-sided, at once": {"estimator": "one-sided", "relaxation": "synchronous", "beta": 0.2},
    "one-sided softmax": {"estimator": "one-sided", "loss": "ce", "nudged_steps": 3},
}


@pytest.mark.parametrize("settings", PROPAGATION.values(), ids=PROPAGATION)
def test_equilibrium_propagation(make_method: Make, settings: dict[str, Any]) -> None:
    """Catches adam for adamw, even layers before odd ones, another number of free or nudged steps, a second nudged
    phase that begins where the first ended, a nudge of the wrong sign or size, a read-out that learns of one phase.
    """
    method = in_double(make_method("equilibrium-propagation", task=colour_task("mlp"), **settings))
    slow = Propagation(numpy_blocks(method.net), **settings)
    data = batches(4)
    train(method, data)
    for x, y in data:
        slow.step(number(x), y.numpy())
    assert_weights(method.net, slow.blocks)
