"""channel-goodness, sigprop and loco over whole steps on 3-channel images: all weights beside numpy.

Each test's words name the mistakes that it catches.
"""

from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
import torch
from bench.methods.local.loco import views

from tests.methods.local.derived import contrast, normalised, normalised_gradient
from tests.methods.rederived import (
    Adam,
    AdamW,
    Array,
    Labels,
    cross_entropy,
    falls,
    linear,
    linear_gradient,
    relu,
)
from tests.methods.whole_steps import (
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
C = 4


# ---- channel goodness -----------------------------------------------------------------------------------------------


def class_groups(n: int) -> tuple[list[list[int]], int]:
    """Channels of each group and classes a group: n >= C channels, or groups for k = ceil(C / n) classes."""
    k = -(-C // n)
    count = -(-C // k)
    return [[u for u in range(n) if u * count // n == g] for g in range(count)], k


class BatchNorm:
    """Mean 0 and variance 1 over batch and positions, then gamma and beta; running statistics with momentum .1."""

    def __init__(self, n: int) -> None:
        self.gamma, self.beta = np.ones(n), np.zeros(n)
        self.mean, self.var = np.zeros(n), np.ones(n)

    def forward(self, h: Array) -> Array:
        rows = np.moveaxis(h, 1, 0).reshape(h.shape[1], -1)
        n = rows.shape[1]
        self.mean = 0.9 * self.mean + 0.1 * rows.mean(1)
        self.var = 0.9 * self.var + 0.1 * rows.var(1) * n / (n - 1)
        self.normed = [normalised(row[None], 1e-4)[0] for row in rows]
        self.rows, self.shape = rows, np.moveaxis(h, 1, 0).shape
        out = np.stack([g * u[0] + b for g, u, b in zip(self.gamma, self.normed, self.beta, strict=True)])
        return np.moveaxis(out.reshape(self.shape), 0, 1)

    def backward(self, delta: Array) -> Array:
        d = np.moveaxis(delta, 1, 0).reshape(self.rows.shape)
        self.gradients = [np.array([(u[0] * of).sum() for u, of in zip(self.normed, d, strict=True)]), d.sum(1)]
        parts = zip(self.rows, self.gamma, d, strict=True)
        back = np.stack([normalised_gradient(row[None], g * of[None], 1e-4)[0] for row, g, of in parts])
        return np.moveaxis(back.reshape(self.shape), 0, 1)


def group_normalised(h: Array) -> Array:
    out = np.empty_like(h)
    for group in class_groups(h.shape[1])[0]:
        out[:, group] = normalised(h[:, group])[0]
    return out


@pytest.mark.parametrize("net", ON)
@pytest.mark.parametrize("form", ["cwcomp", "deeper-forward"])
@pytest.mark.parametrize("by", ["sum", "classifier"])
def test_channel_goodness(make_method: Make, net: str, form: str, by: str) -> None:
    """adam for adamw; images normed channel by channel, or squares for means; a batch norm that does not learn or whose
    eps is torch's; groups of channels other than consecutive; labels not shared out where channels are fewer than
    classes (the first layer of the cnn); a classifier that learns unasked, or from outputs before the norm.
    """
    method = in_double(make_method("channel-goodness", task=colour_task(net), form=form, predict_by=by))
    for groups in method.groups:
        groups.mean.copy_(groups.mean.bool().double() / groups.member.bincount())  # its float32 ninths, to all digits
    *layers, classifier = numpy_blocks(method.net)
    deeper = form == "deeper-forward"
    norms = [] if deeper else [BatchNorm(len(layer.W)) for layer in layers]
    of_norms = [[norm.gamma, norm.beta] for norm in norms] or [[] for _ in layers]
    steps = [AdamW([*a.weights, *b], 1e-3, 1e-3) for a, b in zip(layers, of_norms, strict=True)]
    last = AdamW(classifier.weights, 1e-3, 1e-3)
    data = batches(4)
    for x, labels in data:
        h, y = number(x), labels.numpy()
        h = normalised(h)[0] if deeper else h
        for k, layer in enumerate(layers):
            h = layer.forward(h)
            h = h if deeper else norms[k].forward(h)
            groups, share = class_groups(h.shape[1])
            g = h if deeper else h**2
            G = np.stack([g[:, of].reshape(len(g), -1).mean(1) for of in groups], axis=1)
            _, e = cross_entropy(G, y // share)
            delta = np.empty_like(h)
            for column, of in enumerate(groups):
                size = len(of) * int(np.prod(h.shape[2:]))
                delta[:, of] = e[:, column].reshape(-1, *[1] * (h.ndim - 1)) / size
            delta = delta if deeper else delta * 2 * h
            layer.backward(delta if deeper else norms[k].backward(delta))
            steps[k].step(layer.gradients + ([] if deeper else norms[k].gradients))
            h = group_normalised(h) if deeper else h
        if by == "classifier":
            _, e = cross_entropy(classifier.forward(h), y)
            classifier.backward(e)
            last.step(classifier.gradients)
    train(method, data)
    # behind a batch norm some gradients are hardly more than rounding
    assert_weights(method.net, [*layers, classifier], rtol=1e-8, atol=1e-9)
    if not deeper:
        assert_weights(method.norms, [w for of in of_norms for w in of], rtol=1e-8, atol=1e-9)
        for ours, norm in zip(method.norms, norms, strict=True):
            np.testing.assert_allclose(ours.running_mean, norm.mean, rtol=1e-8)
            np.testing.assert_allclose(ours.running_var, norm.var, rtol=1e-8)


# ---- signal propagation ---------------------------------------------------------------------------------------------


def positions(h: Array) -> int:
    return int(np.prod(h.shape[2:]))


def similarity(h: Array, t: Array, nearest: Labels) -> tuple[Array, Array]:
    """Gradients by h and t of mean_n CE(softmax_m s_nm, nearest n), s the mean over positions of <h_n, t_m>."""
    flat_h, flat_t = h.reshape(len(h), -1), t.reshape(len(t), -1)
    _, e = cross_entropy(flat_h @ flat_t.T / positions(h), nearest)
    return (e @ flat_t / positions(h)).reshape(h.shape), (e.T @ flat_h / positions(h)).reshape(t.shape)


@pytest.mark.parametrize("net", ON)
@pytest.mark.parametrize("settings", [{}, {"target": "label"}, {"weight_decay": 0.1}, {"lr": 0.005}], ids=str)
def test_sigprop(make_method: Make, net: str, settings: dict[str, Any]) -> None:
    """adamw for adam; a context without its ReLU or its norm; an S that rests; a factor or a milestone of another
    schedule, or a step late; sums over positions for means; the label for the nearest context; gradients between
    layers. 16 steps: edges at 8, 12, 14 and 15.
    """
    method = in_double(make_method("sigprop", task=colour_task(net), **settings))
    with torch.no_grad():  # contexts of unequal length, so that the nearest one may be that of another class
        gain = method.context.norm.weight
        gain.copy_(torch.linspace(0, 3, gain.numel()).view_as(gain))
        method.context.norm.bias.copy_(torch.linspace(0.2, 0.1, gain.numel()).view_as(gain))
    blocks = numpy_blocks(method.net)
    S, gamma, beta = numbers(method.context)
    lr, decay = settings.get("lr", 5e-4), settings.get("weight_decay", 0.0)
    weights = [[*blocks[0].weights, S, gamma, beta], *(block.weights for block in blocks[1:])]
    steps = [Adam(of, lr, decay) for of in weights]
    data = batches(16, size=7)
    by_gram = 0
    for step, (x, labels) in enumerate(data):
        now, y = falls(lr, step / 16, (0.5, 0.75, 0.875, 0.9375), 0.25), labels.numpy()
        h, t = number(x), np.empty(0)
        nearest = np.array([list(y).index(c) for c in y])
        for k, block in enumerate(blocks[:-1]):
            if k == 0:
                a = S[y]  # a context for each image
                inner = normalised(a)[0]
                t = relu(gamma * inner + beta)
                h = block.forward(h)
                by_h, by_t = similarity(h, t, nearest)
                block.backward(by_h)
                by_t = by_t * (t > 0)
                by_a, by_S = normalised_gradient(a, by_t * gamma), np.zeros_like(S)
                np.add.at(by_S, y, by_a)
                gradients = [*block.gradients, by_S, (by_t * inner).sum(0), by_t.sum(0)]
            else:
                if settings.get("target") != "label":
                    gram = t.reshape(len(t), -1) @ t.reshape(len(t), -1).T
                    nearest = gram.argmax(1)
                    by_gram += int((y[nearest] != y).any())
                both = block.forward(np.concatenate([h, t]))
                h, t = both[: len(y)], both[len(y) :]
                block.backward(np.concatenate(similarity(h, t, nearest)))
                gradients = block.gradients
            steps[k].step(gradients, now)
        _, e = cross_entropy(blocks[-1].forward(h), y)
        blocks[-1].backward(e)
        steps[-1].step(blocks[-1].gradients, now)
    train(method, data)
    # a bias that shifts all contexts alike has no gradient but rounding, of which Adam makes steps
    assert_weights(method.net, blocks, rtol=1e-5, atol=1e-7)
    assert_weights(method.context, [S, gamma, beta], rtol=1e-5, atol=1e-7)
    assert by_gram > 0 or net == "cnn" or settings.get("target") == "label"  # the two targets differ


# ---- LoCo -----------------------------------------------------------------------------------------------------------


class Head:
    """V relu(U mean(h) + c) + d: the head of a stage, on the mean over positions."""

    def __init__(self, weights: list[Array]) -> None:
        self.weights = weights

    def loss(self, h: Array, temperature: float) -> Array:
        """Leaves the gradients; returns that by h."""
        U, c, V, d = self.weights
        rows = h.reshape(*h.shape[:2], -1).mean(2)
        a = linear(rows, U, c)
        _, delta = contrast(linear(relu(a), V, d), temperature)
        delta, *upper = linear_gradient(relu(a), V, delta)
        delta, *lower = linear_gradient(rows, U, delta * (a > 0))
        self.gradients = [*lower, *upper]
        return np.broadcast_to((delta / positions(h)).reshape(*delta.shape, *[1] * (h.ndim - 2)), h.shape).copy()


@pytest.mark.parametrize("net", ON)
@pytest.mark.parametrize(
    "settings", [{}, {"temperature": 0.7, "projection": 3, "lr": 0.01, "weight_decay": 0.1}], ids=str
)
def test_loco(make_method: Make, net: str, settings: dict[str, Any]) -> None:
    """adam for adamw; a head without its ReLU, or upon the maximum over space; a shared block that steps in one of its
    stages alone, or before the second has seen it; a read-out of one view. The views are those of test_loco.py.
    """
    method = in_double(make_method("loco", task=colour_task(net), **settings))
    *hidden, readout = numpy_blocks(method.net)
    heads = [Head(numbers(head)) for head in method.heads]
    step = {"lr": settings.get("lr", 1e-3), "weight_decay": settings.get("weight_decay", 1e-3)}
    of_blocks = [AdamW(block.weights, **step) for block in [*hidden, readout]]
    of_heads = [AdamW(head.weights, **step) for head in heads]
    noise = torch.Generator().set_state(method.noise.get_state())
    data = batches(4)
    for x, labels in data:
        h = number(views(x, method.config, noise))
        y = np.concatenate([labels.numpy()] * 2)
        from_before: list[Array] = []
        for k, head in enumerate(heads):
            lower, upper = hidden[k], hidden[k + 1]
            h = lower.forward(h)
            top = upper.forward(h)
            lower.backward(upper.backward(head.loss(top, settings.get("temperature", 0.2))))
            mine = [g + b for g, b in zip(lower.gradients, from_before or [0.0, 0.0], strict=True)]
            from_before = upper.gradients
            of_heads[k].step(head.gradients)
            of_blocks[k].step(mine)
        of_blocks[len(heads)].step(from_before)
        _, e = cross_entropy(readout.forward(top), y)
        readout.backward(e)
        of_blocks[-1].step(readout.gradients)
    train(method, data)
    assert_weights(method.net, [*hidden, readout])
    assert_weights(method.heads, [w for head in heads for w in head.weights])
