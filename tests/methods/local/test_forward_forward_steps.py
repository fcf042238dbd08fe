"""forward-forward over whole steps on 3-channel images: all weights beside numpy, SGD, Adam and cooling included.

Each test's words name the mistakes that it catches.
"""

from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
import torch

from tests.methods.rederived import SGD, Adam, Array, Block, Labels, cross_entropy, one_hot
from tests.methods.whole_steps import ON, assert_weights, batches, colour_task, in_double, number, numpy_blocks, train

Make = Callable[..., Any]
C = 4


def written(x: Array, labels: Array, amplitude: float = 1.0) -> Array:
    """The first C pixels of the first channel, row by row: a label as bright as that channel's brightest pixel."""
    x = x.copy()
    brightest = np.abs(x[:, 0]).reshape(len(x), -1).max(1)
    for n in range(len(x)):
        for c in range(C):
            x[n, 0, c // x.shape[3], c % x.shape[3]] = amplitude * brightest[n] * labels[n, c]
    return x


def sigmoid(v: Array) -> Array:
    return 1 / (1 + np.exp(-v))


class Derived:
    """Hinton 2022 as in Lowe's code (hinton), or as in Pezeshki's (mean-goodness)."""

    def __init__(self, method: Any, recipe: str = "hinton", head: bool = True, **settings: Any) -> None:
        self.hinton, self.settings, blocks = recipe == "hinton", settings, numpy_blocks(method.net)
        self.layers = blocks[:-1]
        lr = settings.get("lr", 1e-3 if self.hinton else 0.03)
        self.theta = settings.get("theta", 1.0 if self.hinton else 2.0)
        self.steps = [
            SGD(layer.weights, lr, momentum=0.9, weight_decay=3e-4) if self.hinton else Adam(layer.weights, lr)
            for layer in self.layers
        ]
        self.r: list[Array] = []
        self.first_read = 1 if self.hinton else 0  # the head does not look at the first layer
        x = np.zeros((1, 3, 6, 6))
        sizes = []
        for layer in self.layers:
            x = layer.forward(x)
            sizes.append(x[0].size)
            self.r.append(np.full(x.shape[1], 0.5))
        self.head = [np.zeros((C, sum(sizes[self.first_read :]))), np.zeros(C)] if head else []
        self.head_step = SGD(self.head, settings.get("head_lr", 1e-2), momentum=0.9, weight_decay=3e-3)

    def norm(self, h: Array) -> Array:
        rows = h.reshape(len(h), -1)
        length = np.linalg.norm(rows, axis=1, keepdims=True) + 1e-8
        return np.asarray((rows / length * (np.sqrt(rows.shape[1]) if self.hinton else 1)).reshape(h.shape))

    def features(self, x: Array) -> Array:
        h = written(x, np.full((len(x), C), 1 / C), self.settings.get("amplitude", 1.0))
        read = []
        for layer in self.layers:
            h = layer.forward(self.norm(h))
            read.append(self.norm(h).reshape(len(h), -1))
        return np.hstack(read[self.first_read :])

    def step(self, x: Array, y: Labels, wrong: Labels, factor: float = 1.0, turn: int | None = None) -> None:
        """factor: on all step sizes. turn: the layer that learns by itself, in sequence."""
        if self.head:
            read = self.features(x)
            _, e = cross_entropy(read @ self.head[0].T + self.head[1], y)
            self.head_step.step([e.T @ read, e.sum(0)], factor * self.head_step.lr)
        labels = np.concatenate([y, wrong])
        m = len(wrong) // len(y)
        h = written(np.concatenate([x] * (1 + m)), one_hot(labels, C), self.settings.get("amplitude", 1.0))
        for k, layer in enumerate(self.layers):
            h = layer.forward(self.norm(h))
            if turn is None or k == turn:
                self.learn(k, layer, h, len(y), factor)
            if k == turn:
                break

    def learn(self, k: int, layer: Block, h: Array, B: int, factor: float) -> None:
        n, N = h[0].size, len(h) - B
        scale = 1.0 if self.hinton else 1 / n
        G = scale * (h.reshape(len(h), -1) ** 2).sum(1)
        by_G = np.zeros(len(h))
        if self.settings.get("loss") == "symba":
            alpha = self.settings.get("alpha", 4.0)
            for i in range(N):
                pull = alpha * sigmoid(-alpha * (G[i % B] - G[B + i])) / N
                by_G[i % B] -= pull
                by_G[B + i] += pull
        else:
            theta = self.theta * (n if self.hinton else 1)
            by_G[:B] = -0.5 / B * sigmoid(theta - G[:B])
            by_G[B:] = 0.5 / N * sigmoid(G[B:] - theta)
        delta = (2 * scale * by_G).reshape(-1, *[1] * (h.ndim - 1)) * h
        if self.hinton:  # peer normalisation: 0.03 mean_u (mean_v r_v - r_u)^2 on images with their own labels
            axes, places = (0, *range(2, h.ndim)), int(np.prod(h.shape[2:]))
            self.r[k] = 0.9 * self.r[k] + 0.1 * h[:B].mean(axes)
            by_r = 0.03 * 2 * (self.r[k] - self.r[k].mean()) / len(self.r[k])
            delta[:B] += (0.1 * by_r / (B * places)).reshape(1, -1, *[1] * (h.ndim - 2))
            self.straight_through(layer, delta)
        else:
            layer.backward(delta)
        self.steps[k].step(layer.gradients, factor * self.steps[k].lr)

    def straight_through(self, layer: Block, delta: Array) -> None:
        """The gradient passes relu where a unit is off, too."""
        act, layer.act = layer.act, "identity"
        layer.backward(delta)
        layer.act = act


def made(make_method: Make, net: str, **settings: Any) -> tuple[Any, Derived]:
    method = in_double(make_method("forward-forward", task=colour_task(net), **settings))
    head = settings.pop("predict_by", "goodness" if settings.get("recipe") == "mean-goodness" else "head") == "head"
    return method, Derived(
        method, head=head, **{k: v for k, v in settings.items() if k not in ("schedule", "negatives")}
    )


def drawn(generator: torch.Generator, y: torch.Tensor) -> Labels:
    """A wrong label for each image, as far from its own as the draw says."""
    return ((y + torch.randint(1, C, y.shape, generator=generator)) % C).numpy()


def assert_derived(method: Any, derived: Derived) -> None:
    assert_weights(method.layers, derived.layers)
    if derived.head:
        assert_weights(method.heads, derived.head)
    if derived.hinton:
        for mean, r in zip(method.peer_means, derived.r, strict=True):
            np.testing.assert_allclose(mean, r, rtol=1e-10)


SETTINGS: list[dict[str, Any]] = [
    {},
    {"amplitude": 0.5, "theta": 0.2, "lr": 0.01, "head_lr": 0.1},
    {"loss": "symba", "alpha": 0.3},
    {"recipe": "mean-goodness"},
    {"recipe": "mean-goodness", "predict_by": "head", "loss": "symba"},
]


@pytest.mark.parametrize("net", ON)
@pytest.mark.parametrize("settings", SETTINGS, ids=lambda s: "-".join(map(str, s.values())) or "default")
def test_all_weights(make_method: Make, net: str, settings: dict[str, Any]) -> None:
    """A label over all channels, or as bright as the brightest pixel of any; momentum or decay of layers or of the head
    left out, or exchanged; adamw or decay for Adam; a norm over channels alone; theta per layer for per unit; a head
    that sees the first layer, or one label; running means of negatives; a step before the head has looked; cooling a
    step early. 6 steps: the step size falls by a third with step 4.
    """
    method, derived = made(make_method, net, **settings)
    noise = torch.Generator().set_state(method.noise.get_state())
    data = batches(6)
    for step, (x, y) in enumerate(data):
        factor = min(1.0, 2 - 2 * step / 6) if derived.hinton else 1.0
        derived.step(number(x), y.numpy(), drawn(noise, y), factor)
    train(method, data)
    assert_derived(method, derived)


@pytest.mark.parametrize("recipe", ["hinton", "mean-goodness"])
def test_all_wrong_labels(make_method: Make, recipe: str) -> None:
    """Positives and negatives weighted by their number, not half each; images paired with another image's label."""
    method, derived = made(make_method, "mlp", recipe=recipe, negatives="all")
    data = batches(3)
    for step, (x, y) in enumerate(data):
        wrong = np.concatenate([(y.numpy() + k) % C for k in range(1, C)])
        derived.step(number(x), y.numpy(), wrong, min(1.0, 2 - 2 * step / 3) if derived.hinton else 1.0)
    train(method, data)
    assert_derived(method, derived)


@pytest.mark.parametrize("net", ON)
@pytest.mark.parametrize("recipe", ["hinton", "mean-goodness"])
def test_in_sequence(make_method: Make, net: str, recipe: str) -> None:
    """Cooling over all of training in place of a layer's turn; momentum that a layer keeps from another one; layers
    that step outside their turn; a head that rests. 12 steps, 4 a layer: step sizes fall with the last of them.
    """
    method, derived = made(make_method, net, recipe=recipe, schedule="sequential", predict_by="head")
    noise = torch.Generator().set_state(method.noise.get_state())
    data = batches(12)
    for step, (x, y) in enumerate(data):
        factor = min(1.0, 2 - 2 * (step % 4) / 4) if derived.hinton else 1.0
        derived.step(number(x), y.numpy(), drawn(noise, y), factor, turn=step // 4)
    train(method, data)
    assert_derived(method, derived)
