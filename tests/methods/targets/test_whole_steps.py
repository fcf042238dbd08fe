"""Whole steps of PEPITA, forward target propagation and target propagation, beside their equations in numpy."""

from collections.abc import Callable
from math import sqrt
from typing import Any

import numpy as np
import pytest
import torch

from tests.methods.rederived import (
    SGD,
    AdamW,
    Array,
    Block,
    conv_gradient,
    cross_entropy,
    falls,
    linear_gradient,
    max_pool,
    one_hot,
    relu,
    softmax,
)
from tests.methods.whole_steps import (
    IMAGE_SHAPE,
    N_CLASSES,
    ON,
    assert_weights,
    batches,
    colour_task,
    in_double,
    number,
    numbers,
    numpy_blocks,
    train,
)

Make = Callable[..., Any]


def weights(blocks: list[Block]) -> list[Array]:
    return [w for block in blocks for w in block.weights]


def pooled(block: Block, h: Array) -> Array:
    return max_pool(h) if block.pool else h


def product(block: Block, x: Array, delta: Array) -> list[Array]:
    """delta x^T by the weight and the bias, summed over examples and positions."""
    _, *of = (conv_gradient if block.W.ndim == 4 else linear_gradient)(x, block.W, delta)
    return of


@pytest.mark.parametrize("net", ON)
@pytest.mark.parametrize("settings", [{}, {"momentum": 0.5, "lr": 0.02}])
def test_pepita(make_method: Make, net: str, settings: dict[str, Any]) -> None:
    """Catches a momentum without effect, Nesterov, a velocity that begins anew where the step size falls, another edge
    of the schedule, the first pass as input of a product, and the second pass's error behind convolutions.
    """
    method = in_double(make_method("pepita", task=colour_task(net), **settings))
    blocks, F = numpy_blocks(method.net), number(method.feedback[0])
    optimiser, lr = SGD(weights(blocks), 0.1, settings.get("momentum", 0.9)), settings.get("lr", 0.1)
    data = batches(10)
    train(method, data)
    *hidden, output = blocks
    for k, (tx, ty) in enumerate(data):
        x, y, n = number(tx), ty.numpy(), len(ty)
        clean, h = [], x
        for block in hidden:
            block.forward(h)
            clean.append(block.h)
            h = pooled(block, block.h)
        e = softmax(output.forward(h)) - one_hot(y, N_CLASSES)
        h = x + np.einsum("nc,cijk->nijk", e, F)
        gradients = []
        for block, before in zip(hidden, clean, strict=True):
            block.forward(h)
            positions = block.h[0, 0].size if block.W.ndim == 4 else 1
            gradients += [g / (n * positions) for g in product(block, h, before - block.h)]
            h = pooled(block, block.h)
        if net == "mlp":
            e = softmax(output.forward(h)) - one_hot(y, N_CLASSES)
        gradients += [g / n for g in product(output, h, e)]
        optimiser.step(gradients, falls(lr, k / len(data), (0.6, 0.9), 0.1))
    assert_weights(method.net, blocks)


def test_pepitas_feedback(make_method: Make) -> None:
    """Catches a fan-in without the channels, or of the first layer, one draw for all seeds or all classes."""
    F = {
        (net, seed): number(make_method("pepita", task=colour_task(net, width=20), seed=seed).feedback[0])
        for net in ON
        for seed in (0, 1)
    }
    bound = 0.05 * sqrt(6 / (3 * 6 * 6))
    for one in F.values():
        assert one.shape == (N_CLASSES, *IMAGE_SHAPE)
        assert 0.98 * bound < one.max() <= bound
        assert -0.98 * bound > one.min() >= -bound
    for net in ON:
        assert abs(np.corrcoef(F[net, 0].ravel(), F[net, 1].ravel())[0, 1]) < 0.3
    assert abs(np.corrcoef(F["mlp", 0].reshape(N_CLASSES, -1))[np.triu_indices(4, 1)]).max() < 0.4


@pytest.mark.parametrize("net", ON)
@pytest.mark.parametrize("settings", [{}, {"gamma": 0.3, "lr": 5e-3, "weight_decay": 0.1}])
def test_forward_target_propagation(make_method: Make, net: str, settings: dict[str, Any]) -> None:
    """Catches adam for adamw, no tanh, targets that skip a pool, a last layer that learns of the second pass, 1 / N."""
    method = in_double(make_method("forward-target-propagation", task=colour_task(net), **settings))
    blocks, G = numpy_blocks(method.net), number(method.feedback[0])
    assert len(method.feedback) == 1
    lr, decay = settings.get("lr", 1e-3), settings.get("weight_decay", 1e-3)
    optimiser = AdamW(weights(blocks), lr, weight_decay=decay)
    data = batches(3)
    found = train(method, data)
    *hidden, output = blocks
    for k, (tx, ty) in enumerate(data):
        x, y = number(tx), ty.numpy()
        seen, h = [], x
        for block in hidden:
            block.forward(h)
            seen.append((h, block.h, block.slope()))
            h = pooled(block, block.h)
        scores = output.forward(h)
        loss, e = cross_entropy(scores, y)
        assert found[k]["loss"] == pytest.approx(loss, rel=1e-9)
        sent = np.tensordot(one_hot(y, N_CLASSES), G, 1), np.tensordot(softmax(scores), G, 1)
        tau = seen[0][1] + settings.get("gamma", 1.0) * (np.tanh(sent[0]) - np.tanh(sent[1]))
        gradients: list[Array] = []
        for depth, (block, (below, activity, slope)) in enumerate(zip(hidden, seen, strict=True)):
            if depth:
                block.forward(pooled(hidden[depth - 1], tau))
                tau = block.h
            gradients += product(block, below, (activity - tau) * slope / len(y))
        gradients += product(output, h, e)
        optimiser.step(gradients)
    assert_weights(method.net, blocks)


def test_forward_target_propagations_feedback(make_method: Make) -> None:
    """Catches a law without the layer's size, or with the number of classes, and one draw for all seeds."""
    for net, units in (("mlp", 30), ("cnn", 30 * 6 * 6)):
        G = [
            number(make_method("forward-target-propagation", task=colour_task(net, width=30), seed=seed).feedback[0])
            for seed in (0, 1)
        ]
        for one in G:
            assert one.size == N_CLASSES * units
            assert 0.95 / sqrt(units) < abs(one).max() <= 1 / sqrt(units)
        assert abs(np.corrcoef(G[0].ravel(), G[1].ravel())[0, 1]) < 0.3


class Feedback:
    """G(h) = V unpool(s(h)) + c, or s of it: V as a linear or a transposed convolutional layer."""

    def __init__(self, mirror: Any, block: Block, below: Block, rule: str) -> None:
        self.weights, self.block, self.below, self.rule = numbers(mirror), block, below, rule
        self.shape = mirror.shape

    def lifted(self, h: Array, at: Array) -> Array:
        """What V acts on: values go where the maxima of the activity `at`, before pooling, stood."""
        if self.rule == "l-drl" and self.block.act == "relu":
            h = relu(h)
        if not self.block.pool:
            return h
        up = np.zeros((len(h), *at.shape[1:]))
        for n, c, i, j in np.ndindex(*h.shape):
            place = at[n, c, 2 * i : 2 * i + 2, 2 * j : 2 * j + 2].argmax()
            up[n, c, 2 * i + place // 2, 2 * j + place % 2] = h[n, c, i, j]
        return up

    def linear(self, lifted: Array) -> Array:
        V = self.weights[0]
        if V.ndim == 2:
            below = lifted @ V.T
        else:
            like = np.zeros((len(lifted), V.shape[1], *lifted.shape[2:]))
            below, *_ = conv_gradient(like, V, lifted)
        if self.rule == "dtp":
            c = self.weights[1]
            below = below + (c if V.ndim == 2 else c.reshape(1, -1, 1, 1))
        return np.asarray(below.reshape(len(lifted), *self.shape))

    def __call__(self, lifted: Array) -> Array:
        below = self.linear(lifted)
        return relu(below) if self.rule == "dtp" else below

    def gradient(self, lifted: Array, by: Array) -> list[Array]:
        """Of sum(by * linear(lifted)) by V and c."""
        V = self.weights[0]
        if V.ndim == 2:
            rows = by.reshape(len(by), -1)
            of = [rows.T @ lifted, rows.sum(0)]
        else:
            of = [conv_gradient(by, V, lifted)[1], by.sum((0, 2, 3))]
        return of[: len(self.weights)]


TARGET: dict[str, dict[str, Any]] = {
    "defaults": {},
    "dtp": {
        "rule": "dtp",
        "beta": 0.4,
        "feedback_steps": 2,
        "feedback_lr": 0.01,
        "sigma": 0.3,
        "lr": 2e-3,
        "weight_decay": 0.1,
    },
}


@pytest.mark.parametrize("net", ON)
@pytest.mark.parametrize("settings", TARGET.values(), ids=TARGET)
def test_target_propagation(make_method: Make, net: str, settings: dict[str, Any]) -> None:
    """Catches adam for adamw in either net, the step size of one net in the other, another number of feedback steps, a
    layer that steps before its feedback layer has learnt of it, a target handed on by G from before it learnt.
    """
    method = in_double(make_method("target-propagation", task=colour_task(net), **settings))
    of = {"rule": "l-drl", "beta": 0.1, "sigma": 0.1, "feedback_lr": 1e-3, "feedback_steps": 5} | settings
    lr, decay = settings.get("lr", 1e-3), settings.get("weight_decay", 1e-3)
    blocks = numpy_blocks(method.net)
    G = [Feedback(m, blocks[k + 1], blocks[k], of["rule"]) for k, m in enumerate(method.feedback)]
    optimisers = [AdamW(block.weights, lr, weight_decay=decay) for block in blocks]
    of_feedback = [AdamW(g.weights, of["feedback_lr"], weight_decay=decay) for g in G]
    noise = torch.Generator()
    noise.set_state(method.noise.get_state())

    def drawn(like: Array, sigma: float) -> Array:
        return sigma * number(torch.randn(like.shape, generator=noise, dtype=torch.float64))

    data = batches(3)
    train(method, data)
    for tx, ty in data:
        h, n = [number(tx)], len(ty)
        activities = []
        for block in blocks:
            h.append(block.forward(h[-1]))
            activities.append(block.h)
        t = h[-1] - of["beta"] * (softmax(h[-1]) - one_hot(ty.numpy(), N_CLASSES))
        for k in range(len(blocks) - 1, -1, -1):
            block, below, at = blocks[k], h[k], activities[k]
            if k:
                g, sigma = G[k - 1], of["sigma"] * sqrt((below**2).mean())
                lifted_h = g.lifted(h[k + 1], at)
                for _ in range(of["feedback_steps"]):
                    xi = drawn(below, sigma)
                    lifted = g.lifted(block.forward(below + xi), at)
                    if of["rule"] == "dtp":
                        back = g.linear(lifted)
                        by = 2 * (relu(back) - (below + xi)) * (back > 0) / n
                        of_feedback[k - 1].step(g.gradient(lifted, by))
                        continue
                    moved = g.lifted(h[k + 1] + drawn(h[k + 1], sigma), at) - lifted_h
                    by_xi = g.gradient(lifted - lifted_h, -2 * xi / (sigma**2 * n))
                    by_eta = g.gradient(moved, 2 * g.linear(moved) / (sigma**2 * n))
                    of_feedback[k - 1].step([a + b for a, b in zip(by_xi, by_eta, strict=True)])
            block.backward((block.forward(below) - t) / n)
            optimisers[k].step(block.gradients)
            if k:
                t = below + G[k - 1](G[k - 1].lifted(t, at)) - G[k - 1](G[k - 1].lifted(h[k + 1], at))
    assert_weights(method.net, blocks, rtol=1e-8, atol=1e-10)
    assert_weights(method.feedback, [w for g in G for w in g.weights], rtol=1e-8, atol=1e-10)
