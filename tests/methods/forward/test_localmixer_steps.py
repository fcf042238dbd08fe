"""Forward-gradient rules on LocalMixer over whole steps on 3-channel images: all weights beside numpy, AdamW included.

A loss for each patch and channel group is taken at its word: a backward pass in numpy for each, with all other patches
and groups held. Each test's words name the mistakes that it catches.
"""

from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
import pytest
import torch

from bench.nets.localmixer import LocalMixer
from bench.testing.subject import image_task
from tests.methods.forward.mixer import MixerBlock, patches
from tests.methods.rederived import AdamW, Array, cross_entropy, linear, linear_gradient
from tests.methods.whole_steps import (
    IMAGE_SHAPE,
    N_CLASSES,
    assert_weights,
    batches,
    in_double,
    number,
    numbers,
    prototypes,
    train,
)

Make = Callable[..., Any]
SIDE, GROUPS, CHANNELS, P = 2, 2, 6, 4
TASK = image_task(
    "colours", N_CLASSES, IMAGE_SHAPE, 60, LocalMixer,
    {"depth": 3, "patches": SIDE, "channels": CHANNELS, "groups": GROUPS}, prototypes,
)  # fmt: skip
SETTINGS: list[dict[str, Any]] = [{}, {"k": 2, "lr": 0.03, "weight_decay": 0.2}]
# a token layer's bias shifts all channels alike: its gradient is rounding, of which AdamW makes steps
CLOSE = {"rtol": 1e-7, "atol": 1e-8}
any_settings = pytest.mark.parametrize("settings", SETTINGS, ids=str)


class Mixer:
    """The net's weights, and a generator that draws what the method will."""

    def __init__(self, method: Any, settings: dict[str, Any]) -> None:
        *body, last = method.net.blocks
        self.blocks = [MixerBlock(numbers(block), GROUPS) for block in body]
        self.R, self.b = numbers(last)
        self.weights = [w for block in self.blocks for w in block.weights] + [self.R, self.b]
        self.noise = torch.Generator().set_state(method.noise.get_state())
        self.k = settings.get("k", 1)

    def draw(self, *shape: int) -> Array:
        return number(torch.randn(self.k, *shape, generator=self.noise, dtype=torch.float64))

    def perturb(self, block: MixerBlock, size: int) -> list[Array]:
        """Noise behind each layer; none where the ReLU that follows is off."""
        return [self.draw(size, P, CHANNELS) * on for on in block.on]

    def flat(self, weights: Sequence[Array]) -> list[list[Array]]:
        """Directions over all weights, by weight."""
        V = self.draw(sum(w.size for w in weights))
        ends = np.cumsum([w.size for w in weights])[:-1]
        return [[part.reshape(w.shape) for part, w in zip(np.split(v, ends), weights, strict=True)] for v in V]


def step_of(settings: dict[str, Any], weights: Sequence[Array]) -> AdamW:
    return AdamW(weights, settings.get("lr", 1e-3), settings.get("weight_decay", 1e-3))


def of_examples(a: Array, b: Array) -> Array:
    return np.asarray((a * b).reshape(len(a), -1).sum(1))


@any_settings
@pytest.mark.parametrize("space", ["activity", "weight"])
def test_forward_gradient(make_method: Make, space: str, settings: dict[str, Any]) -> None:
    """Noise in front of the LayerNorm, or an estimate that is not pulled back through it; a skip connection, or the
    read-out, that carries no tangent; noise of units that are off behind the sum; adam for adamw.
    """
    method = in_double(make_method("forward-gradient", task=TASK, space=space, **settings))
    net = Mixer(method, settings)
    step = step_of(settings, net.weights)
    data = batches(4)
    for x, labels in data:
        z, y, n = patches(number(x), SIDE), labels.numpy(), len(labels)
        if space == "weight":
            V = net.flat(net.weights)
        u = []
        for block in net.blocks:
            z = block.forward(z)
            u.append(net.perturb(block, n) if space == "activity" else [])
        at_scores = net.draw(n, N_CLASSES) if space == "activity" else np.zeros((net.k, n, N_CLASSES))
        pooled = z.mean(1)
        _, e = cross_entropy(linear(pooled, net.R, net.b), y)
        back, *of_readout = linear_gradient(pooled, net.R, e)
        slopes = np.array([of_examples(n * e, one) for one in at_scores])
        delta = np.repeat(back[:, None] / P, P, axis=1)
        for block, of_block in zip(reversed(net.blocks), reversed(u), strict=True):
            delta = block.backward(delta)
            for layer, noise in zip(block.layers, of_block, strict=False):
                slopes += np.array([of_examples(n * layer.site, one) for one in noise])
        if space == "weight":
            G = [*(g for block in net.blocks for g in block.gradients), *of_readout]
            along = [sum((g * v).sum() for g, v in zip(G, of, strict=True)) for of in V]
            step.step([sum(c * of[j] for c, of in zip(along, V, strict=True)) / net.k for j in range(len(G))])
            continue
        gradients = []
        for block, of_block in zip(net.blocks, u, strict=True):
            for layer, noise in zip(block.layers, of_block, strict=True):
                layer.backward(np.einsum("kb,kbpc->bpc", slopes, noise) / (net.k * n))
                gradients += layer.gradients
        d = np.einsum("kb,kbc->bc", slopes, at_scores) / (net.k * n)
        step.step([*gradients, *linear_gradient(pooled, net.R, d)[1:]])
    train(method, data)
    assert_weights(method.net, net.weights, **CLOSE)


@any_settings
@pytest.mark.parametrize("space", ["activity", "weight"])
def test_local_forward_gradient(make_method: Make, space: str, settings: dict[str, Any]) -> None:
    """One loss a block where each patch and group has its own; a token layer that takes a group's slope, or a channel
    layer the sum; slopes without 1 / P; a grouped layer that takes the sum of the slopes of all groups; heads on
    another statistic than the mean of patches, or that learn by an estimate; adam for adamw.
    """
    method = in_double(make_method("local-forward-gradient", task=TASK, space=space, **settings))
    net, heads = Mixer(method, settings), numbers(method.heads)
    step = step_of(settings, [*net.weights, *heads])
    data = batches(4)
    for x, labels in data:
        z, y, n = patches(number(x), SIDE), labels.numpy(), len(labels)
        gradients, of_heads = list[Array](), list[Array]()
        for b, block in enumerate(net.blocks):
            V = net.flat(block.weights) if space == "weight" else []
            z = block.forward(z)
            u = net.perturb(block, n) if space == "activity" else []
            W, bias = heads[2 * b : 2 * b + 2]
            _, e = cross_entropy(linear(z.mean(1), W, bias), y)
            back, *of_head = linear_gradient(z.mean(1), W, e)
            of_heads += of_head
            slopes = np.zeros((net.k, n, P, GROUPS))  # of L_n,p,g along the noise
            along = np.zeros((net.k, GROUPS))  # of the sum over n and p, along directions over weights
            for p in range(P):
                for g in range(GROUPS):
                    seen = np.zeros_like(z)
                    channels = slice(g * CHANNELS // GROUPS, (g + 1) * CHANNELS // GROUPS)
                    seen[:, p, channels] = back[:, channels] / P
                    block.backward(seen)
                    for k in range(net.k):
                        if space == "weight":
                            along[k, g] += sum((d * v).sum() for d, v in zip(block.gradients, V[k], strict=True))
                            continue
                        for layer, noise in zip(block.layers, u, strict=True):
                            slopes[k, :, p, g] += of_examples(layer.site, noise[k])
            if space == "weight":
                for j, of in enumerate(zip(*V, strict=True)):
                    layer = block.layers[j // 2]
                    if layer.kind == "group":
                        cut = [v.reshape(GROUPS, -1) for v in of]
                        moved = sum(c[:, None] * v for c, v in zip(along, cut, strict=True))
                    else:
                        moved = sum(c.sum() * v for c, v in zip(along, of, strict=True))
                    gradients.append(np.asarray(moved).reshape(of[0].shape) / net.k)
                continue
            for layer, noise in zip(block.layers, u, strict=True):
                by_channel = np.repeat(slopes, CHANNELS // GROUPS, axis=-1)
                credit = slopes.sum(-1, keepdims=True) if layer.kind == "token" else by_channel
                layer.backward((credit * noise).sum(0) / net.k)
                gradients += layer.gradients
        _, e = cross_entropy(linear(z.mean(1), net.R, net.b), y)
        step.step([*gradients, *linear_gradient(z.mean(1), net.R, e)[1:], *of_heads])
    train(method, data)
    assert_weights(method.net, net.weights, **CLOSE)
    assert_weights(method.heads, heads, **CLOSE)
