"""SoftHebb's whole training, both phases, beside its equations in numpy: filters, statistics and read-out."""

from collections.abc import Callable
from dataclasses import replace
from typing import Any

import numpy as np
import pytest
from bench.methods.hebbian.triangle import Triangle
from torch import nn

from bench import Batch, Progress
from bench.nets.cnn import CNN
from bench.nets.mlp import MLP
from tests.methods.rederived import Adam, Array, conv, conv_gradient, cross_entropy, linear, max_pool, relu
from tests.methods.whole_steps import assert_weights, batches, colour_task, in_double, number, numbers

Make = Callable[..., Any]
NETS: dict[str, tuple[Any, dict[str, Any]]] = {
    "mlp": (MLP, {"width": 6, "depth": 4}),
    "cnn": (CNN, {"width": 3, "depth": 3}),
    "triangle": (Triangle, {"width": 3, "depth": 2, "dropout": 0.0}),
}
POWERS = (0.7, 1.4)
DEFAULTS: dict[str, Any] = {  # Journe et al. 2023
    "eta": (0.08, 0.005, 0.01, 0.01),
    "inverse_temperature": (1.0, 0.65, 0.25, 0.25),
    "power": 0.5,
    "radius": 25.0,
    "unsupervised": 0.1,
    "micro_batches": 4,
    "lr": 1e-3,
    "weight_decay": 0.0,
}
OTHERS: dict[str, Any] = {
    "eta": (0.02, 0.05, 0.01, 0.03),
    "inverse_temperature": (0.5, 2.0, 1.5, 0.1),
    "power": 1.0,
    "radius": 4.0,
    "unsupervised": 0.3,
    "micro_batches": 1,
    "lr": 5e-3,
    "weight_decay": 0.1,
}
HALVED_AT = (0.2, 0.35, 0.5, 0.6, 0.7, 0.8, 0.9)


class Layer:
    """Batch norm without affine part, filters without bias, max(u - mean_c u, 0)^p, and a pool."""

    def __init__(self, net: str, k: int, filters: Array, pool: bool, last: bool, of: dict[str, Any]) -> None:
        self.net, self.k, self.pool, self.last, self.of = net, k, pool, last, of
        length = np.sqrt((filters**2).reshape(len(filters), -1).sum(1))
        self.W = of["radius"] * filters / length.reshape(-1, *[1] * (filters.ndim - 1))
        channels = filters.shape[1]
        self.mean, self.var = np.zeros(channels), np.ones(channels)

    def normalised(self, h: Array, learning: bool) -> Array:
        h = h.reshape(len(h), -1) if self.W.ndim == 2 else h
        over, shape = ((0,), (1, -1)) if h.ndim == 2 else ((0, 2, 3), (1, -1, 1, 1))
        mean, var = self.mean, self.var
        if learning:
            mean, var, n = h.mean(over), h.var(over), h.size // h.shape[1]
            self.mean = 0.9 * self.mean + 0.1 * mean
            self.var = 0.9 * self.var + 0.1 * var * n / (n - 1)
        h = (h - mean.reshape(shape)) / np.sqrt(var.reshape(shape) + 1e-5)
        if self.net == "triangle":
            edge = self.W.shape[2] // 2
            h = np.pad(h, [(0, 0), (0, 0), (edge, edge), (edge, edge)], mode="reflect")
        return np.asarray(h)

    def product(self, x: Array) -> Array:
        if self.W.ndim == 2:
            return linear(x, self.W)
        edge = self.W.shape[2] // 2
        u = conv(x, self.W)
        return u[:, :, edge:-edge, edge:-edge] if self.net == "triangle" else u

    def correlated(self, x: Array, y: Array) -> Array:
        """sum y x over images and positions."""
        if self.W.ndim == 2:
            return np.asarray(y.T @ x)
        if self.net == "triangle":
            edge = self.W.shape[2] // 2
            y = np.pad(y, [(0, 0), (0, 0), (edge, edge), (edge, edge)])
        return conv_gradient(x, self.W, y)[1]

    def __call__(self, h: Array, learning: bool) -> Array:
        x = self.normalised(h, learning)
        u = self.product(x)
        if learning:
            self.learn(x, u)
        above = relu(u - u.mean(1, keepdims=True))
        if self.net == "triangle":
            above = above ** POWERS[self.k]
            return mean_pool(above) if self.last else wide_max_pool(above)
        return max_pool(above) if self.pool else above

    def learn(self, x: Array, u: Array) -> None:
        t = self.of["inverse_temperature"][self.k]
        share = np.exp(t * (u - u.max(1, keepdims=True)))
        share = share / share.sum(1, keepdims=True)
        wins = u == u.max(1, keepdims=True)
        y = np.where(wins, share, -share)
        yu = (y * u).sum((0, *range(2, u.ndim)))
        shape = (-1, *[1] * (self.W.ndim - 1))
        change = self.correlated(x, y) - yu.reshape(shape) * self.W
        length = np.sqrt((self.W**2).reshape(len(self.W), -1).sum(1))
        rate = self.of["eta"][self.k] * abs(length - 1) ** self.of["power"]
        self.W = self.W + rate.reshape(shape) * change / abs(change).max()


def mean_pool(x: Array) -> Array:
    h, w = x.shape[2] // 2 * 2, x.shape[3] // 2 * 2
    return np.asarray(sum(x[:, :, i:h:2, j:w:2] for i in (0, 1) for j in (0, 1)) / 4)


def wide_max_pool(x: Array) -> Array:
    """4x4 windows with stride 2 and an edge of 1."""
    h, w = x.shape[2] // 2, x.shape[3] // 2
    x = np.pad(x, [(0, 0), (0, 0), (1, 1), (1, 1)], constant_values=-np.inf)
    return np.asarray(
        np.max([x[:, :, i : i + 2 * h - 1 : 2, j : j + 2 * w - 1 : 2] for i in range(4) for j in range(4)], 0)
    )


@pytest.mark.parametrize(
    ("net", "given"), [*((net, {}) for net in NETS), ("mlp", OTHERS)], ids=[*NETS, "other settings"]
)
def test_softhebb(make_method: Make, net: str, given: dict[str, Any]) -> None:
    """Catches a phase one step shorter (floor for ceil), tuples of defaults in another order, adamw for adam, a
    schedule over all of training, a read-out that keeps weights or moments, statistics that go on, other parts,
    predictions with a batch's own statistics.
    """
    kind, size = NETS[net]
    task = replace(colour_task(), net=kind, net_settings=size)
    chosen = DEFAULTS | given
    method = in_double(make_method("softhebb", task=task, **given))
    plain = in_double(make_method("backprop", task=task))  # the net's own filters
    blocks = list(plain.net.blocks)
    own = [next(m for m in block.modules() if isinstance(m, (nn.Linear, nn.Conv2d))) for block in blocks]
    layers = [
        Layer(
            net,
            k,
            number(layer.weight),
            any(isinstance(m, nn.MaxPool2d) for m in block.modules()),
            k == len(own) - 2,
            chosen,
        )
        for k, (block, layer) in enumerate(zip(blocks[:-1], own, strict=False))
    ]
    assert_weights(method.layers, [layer.W for layer in layers], rtol=1e-6)
    for one, drawn in zip(layers, numbers(method.layers), strict=True):
        one.W = drawn  # which were brought to their length in float32
    first = numbers(own[-1])
    readout = [p.copy() for p in first]
    adam, steps = Adam(readout, chosen["lr"], chosen["weight_decay"]), 15
    learns = 5 if given else 2  # filters learn in the first 10 % of steps, 1.5, that is 2, or in 30 %
    for step, (tx, ty) in enumerate(batches(steps, 9)):
        x, learning = number(tx), step < learns
        method.train_step(Batch(tx, ty), Progress(step, steps, 0))
        if step == learns:
            readout[:] = [p.copy() for p in first]
            adam = Adam(readout, chosen["lr"], chosen["weight_decay"])
        parts = [x[:3], x[3:6], x[6:]] if learning and not given else [x]  # four parts, none larger than ceil(9 / 4)
        features = []
        for part in parts:
            h = part
            for layer in layers:
                h = layer(h, learning)
            features.append(h.reshape(len(h), -1))
        rows = np.concatenate(features)
        _, e = cross_entropy(linear(rows, readout[0], readout[1]), ty.numpy())
        lr = chosen["lr"]
        if not learning:
            lr *= 0.5 ** sum((step - learns) / (steps - learns) >= part for part in HALVED_AT)
        adam.step([e.T @ rows, e.sum(0)], lr)
        if step in (learns - 1, learns, steps - 1):
            assert_weights(method.layers, [layer.W for layer in layers])
            assert_weights(method.readout, readout, rtol=1e-7, atol=1e-9)
            statistics = [t for t in method.layers.buffers() if t.is_floating_point()]
            assert_weights(statistics, [s for layer in layers for s in (layer.mean, layer.var)])
            h = x[:2]  # so few that their own statistics would be far from those of training
            for layer in layers:
                h = layer(h, False)
            np.testing.assert_allclose(number(method.predict(tx[:2])), linear(h, *readout), rtol=1e-7)


def test_the_papers_net_has_the_papers_sizes() -> None:
    """Catches powers in another order, other pools or another drop-out of the read-out."""
    settings = Triangle.Settings()
    assert (settings.width, settings.depth, settings.powers, settings.dropout) == (96, 3, (0.7, 1.4, 1.0), 0.5)
