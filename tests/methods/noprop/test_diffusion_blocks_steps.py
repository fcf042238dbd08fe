"""DiffusionBlocks over whole steps on 3-channel images: all weights beside numpy, the net and AdamW included.

Written from arXiv 2506.14202 and 2206.00364 for the rule, and from Figure 6 of arXiv 2503.24322 for the net. Draws are
those of the blocks' generators.
"""

from collections.abc import Callable, Sequence
from itertools import pairwise
from typing import Any

import numpy as np
import pytest
import torch
from bench.methods.noprop.denoiser import Denoiser
from scipy import stats

from bench.api.seeds import derive
from bench.nets.layers import ReLUDropout
from bench.testing.subject import image_task
from tests.methods.local.derived import unit, unit_gradient
from tests.methods.rederived import AdamW, Array, Block, linear_gradient, one_hot, softmax
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
NET = {"T": 3, "width": 2, "hidden": 6}
DATA_STD, MEAN, STD, LEAST, MOST, GAMMA = 0.5, -1.2, 1.2, 0.002, 80.0, 0.05
SEED = 1  # not 0, so that a draw that forgets the seed shows


class BatchNorm:
    """By the batch's own mean and variance, then g and b."""

    def __init__(self, g: Array, b: Array) -> None:
        self.weights = [g, b]

    def forward(self, x: Array) -> Array:
        self.scale = 1 / np.sqrt(x.var(0) + 1e-5)
        self.n = (x - x.mean(0)) * self.scale
        return self.weights[0] * self.n + self.weights[1]

    def backward(self, delta: Array) -> Array:
        self.gradients = [(delta * self.n).sum(0), delta.sum(0)]
        d = delta * self.weights[0]
        return np.asarray(self.scale * (d - d.mean(0) - self.n * (d * self.n).mean(0)))


class ReLU:
    weights: tuple[Array, ...] = ()
    gradients: tuple[Array, ...] = ()

    def forward(self, x: Array) -> Array:
        self.on = x > 0
        return x * self.on

    def backward(self, delta: Array) -> Array:
        return delta * self.on


class Dropped(ReLU):
    """A mask over 1 - p, handed in before each pass."""

    mask: Array

    def forward(self, x: Array) -> Array:
        return x * self.mask

    def backward(self, delta: Array) -> Array:
        return np.asarray(delta * self.mask)


Part = Any  # what has forward, backward, weights and, after backward, gradients


def ahead(parts: Sequence[Part], x: Array) -> Array:
    for part in parts:
        x = part.forward(x)
    return x


def back(parts: Sequence[Part], delta: Array) -> Array:
    for part in reversed(parts):
        delta = part.backward(delta)
    return delta


def affine(W: Array, b: Array) -> Block:
    return Block(W, b, "identity")


class Guess:
    """One block of the net, told the noise level: logits of (z, x, c_noise). weights: those of Figure 6, then V, c."""

    def __init__(self, block: list[Array], level: list[Array], p: float) -> None:
        w, self.p = iter(block), p
        pairs = [(next(w), next(w)) for _ in range(16)]
        assert not list(w)
        conv1, conv2, conv3, fc, norm, *label, head1, norm1, head2, norm2, head3 = pairs
        self.masks = [Dropped() for _ in range(3)]
        pooled = (Block(*conv1, "relu", True), Block(*conv2, "relu"), Block(*conv3, "relu", True))
        self.image = [part for of in zip(pooled, self.masks, strict=True) for part in of]
        self.image += [affine(*fc), BatchNorm(*norm)]
        fc1, n1, fc2, n2, fc3, n3 = label
        self.first = [affine(*fc1), BatchNorm(*n1), ReLU()]
        self.second = [affine(*fc2), BatchNorm(*n2), ReLU(), affine(*fc3), BatchNorm(*n3)]
        self.head = [affine(*head1), BatchNorm(*norm1), ReLU(), affine(*head2), BatchNorm(*norm2), ReLU()]
        self.head += [affine(*head3)]
        self.level = affine(*level)

    def parts(self) -> list[Part]:
        return [part for part in (*self.image, *self.first, *self.second, *self.head) if len(part.weights)]

    def draw(self, size: int, noise: torch.Generator) -> None:
        """Masks in the order of memory: channels last."""
        channels = [len(part.W) for part in self.image if isinstance(part, Block)][:3]
        for mask, n, side in zip(self.masks, channels, (3, 3, 1), strict=True):
            shape = size, side, side, n
            kept = number(ReLUDropout(self.p).keep(shape, torch.device("cpu"), noise)) if self.p else np.ones(shape)
            mask.mask = np.moveaxis(kept, -1, 1) / (1 - self.p)

    def forward(self, z: Array, x: Array, sinusoids: Array) -> Array:
        h = ahead(self.first, z)
        self.features = np.concatenate([ahead(self.image, x), h + ahead(self.second, h)], axis=1)
        self.scale, shift = np.split(self.level.forward(sinusoids), 2, axis=1)
        return ahead(self.head, self.features * (1 + self.scale) + shift)

    def backward(self, delta: Array) -> Array:
        """The gradient by z."""
        delta = back(self.head, delta)
        self.level.backward(np.concatenate([delta * self.features, delta], axis=1))
        by_image, by_label = np.split(delta * (1 + self.scale), 2, axis=1)
        back(self.image, by_image)
        return back(self.first, by_label + back(self.second, by_label))


class Unit:
    """Blocks that learn as one; the ones behind the first read z moved towards what the one before guessed."""

    def __init__(self, module: Any, p: float, step: dict[str, float]) -> None:
        self.gates = [number(module.gates)] if module.gates is not None else []
        of_blocks = [numbers(block) for block in module.blocks]
        of_levels = [numbers(level) for level in module.levels]
        self.guesses = [Guess(block, level, p) for block, level in zip(of_blocks, of_levels, strict=True)]
        # in the order of the module: gates, blocks, levels
        self.weights = [*self.gates, *(w for of in (*of_blocks, *of_levels) for w in of)]
        self.optimizer = AdamW(self.weights, **step)

    def forward(self, z: Array, x: Array, sinusoids: Array, W: Array) -> Array:
        self.W, self.zs, self.p = W, [z], list[Array]()
        logits = self.guesses[0].forward(z, x, sinusoids)
        for k, guess in enumerate(self.guesses[1:]):
            g = np.tanh(self.gates[0][k])
            self.p.append(softmax(logits))
            self.zs.append((1 - g) * self.zs[-1] + g * self.p[-1] @ W)
            logits = guess.forward(self.zs[-1], x, sinusoids)
        return logits

    def backward(self, delta: Array) -> tuple[Array, Array]:
        """Gradients by z and by W."""
        by_gates, by_W = [np.zeros_like(g) for g in self.gates], np.zeros_like(self.W)
        by_z = self.guesses[-1].backward(delta)
        for k in reversed(range(len(self.p))):
            g, p = np.tanh(self.gates[0][k]), self.p[k]
            by_gates[0][k] = (1 - g**2) * (by_z * (p @ self.W - self.zs[k])).sum()
            by_W += g * p.T @ by_z
            by_p = g * by_z @ self.W.T
            by_logits = p * (by_p - (p * by_p).sum(1, keepdims=True))
            by_z = (1 - g) * by_z + self.guesses[k].backward(by_logits)
        of_blocks = [g for guess in self.guesses for part in guess.parts() for g in part.gradients]
        of_levels = [g for guess in self.guesses for g in guess.level.gradients]
        self.gradients = [*by_gates, *of_blocks, *of_levels]
        return by_z, by_W


def intervals(B: int) -> list[tuple[float, float]]:
    """Equal shares of the truncated log-normal's mass, from noise to label, each end moved by GAMMA of its length."""
    ends = [(np.log(sigma) - MEAN) / STD for sigma in (LEAST, MOST)]
    edges = stats.truncnorm(*ends, loc=MEAN, scale=STD).ppf(np.arange(B + 1) / B)
    found = [(low - GAMMA * (high - low), high + GAMMA * (high - low)) for low, high in pairwise(edges)]
    return [(max(low, np.log(LEAST)), min(high, np.log(MOST))) for low, high in reversed(found)]


def drawn_levels(n: int, interval: tuple[float, float], noise: torch.Generator) -> Array:
    low, high = (stats.norm.cdf((end - MEAN) / STD) for end in interval)
    p = number(torch.rand(n, 1, generator=noise, dtype=torch.float64))
    return np.asarray(np.exp(MEAN + STD * stats.norm.ppf(low + p * (high - low))))


def sinusoids(t: Array) -> Array:
    """Of 1000 t at 32 frequencies between 1 and 1e-4. Shape: (B, 1) to (B, 64)."""
    angles = 1000 * t / 10_000 ** (np.arange(32) / 32)
    return np.concatenate([np.sin(angles), np.cos(angles)], axis=1)


CASES: list[tuple[dict[str, Any], dict[str, Any]]] = [
    ({}, {}),
    ({"embedding": "learned", "dim": 5}, {"lr": 0.01, "weight_decay": 0.2}),
    ({}, {"order": "random"}),
    ({"embedding": "learned", "dim": 5, "dropout": 0.0}, {"blocks": 2, "execution": "loop"}),
]


@pytest.mark.parametrize(("of_net", "settings"), CASES, ids=str)
def test_diffusion_blocks(make_method: Make, of_net: dict[str, Any], settings: dict[str, Any]) -> None:
    """adam for adamw, or no decay of what blocks share; a loss without EDM's weight, or without 1 / B; intervals of
    another overlap, or from label to noise; c_noise without 1/4 or before the image; a level that moves logits in place
    of features; z that blocks do not precondition; gates or embeddings that stand still; a drawn block that takes a
    share of its loss; dropout that is drawn alike in all blocks.
    """
    task = image_task("colours", N_CLASSES, IMAGE_SHAPE, 60, Denoiser, NET | of_net, prototypes)
    method = in_double(make_method("diffusion-blocks", task=task, seed=SEED, **settings))
    step = {"lr": settings.get("lr", 1e-3), "weight_decay": settings.get("weight_decay", 1e-3)}
    units = [Unit(module, of_net.get("dropout", 0.2), step) for module in method.units]
    assert len(units) == settings.get("blocks", 3)
    noise = [generator.clone_state() for generator in method.noise]
    *embedding, R, b = shared = numbers(method.net.labels)
    of_shared = AdamW(shared, **step)
    within = intervals(len(units))
    data = batches(4)
    seen = []
    for k, (images, labels) in enumerate(data):
        x, y, n = number(images), labels.numpy(), len(labels)
        turn = range(len(units)) if settings.get("order") != "random" else [derive(SEED, "block", k) % len(units)]
        W = unit(embedding[0]) if embedding else np.eye(N_CLASSES)
        by_W, by_R, by_b, loss = np.zeros_like(W), np.zeros_like(R), np.zeros_like(b), 0.0
        for i in turn:
            sigma = drawn_levels(n, within[i], noise[i])
            z = W[y] + sigma * number(torch.randn(n, W.shape[1], generator=noise[i], dtype=torch.float64))
            for guess in units[i].guesses:
                guess.draw(n, noise[i])
            total = sigma**2 + DATA_STD**2
            c_in, c_skip, c_out = 1 / np.sqrt(total), DATA_STD**2 / total, sigma * DATA_STD / np.sqrt(total)
            logits = units[i].forward(c_in * z, x, sinusoids(np.log(sigma) / 4), W)
            read = c_skip * z + c_out * (logits @ W)
            p = softmax(read @ R.T + b)
            weight = total / (sigma * DATA_STD) ** 2 / len(turn)
            loss += float((-weight[:, 0] * np.log(p[np.arange(n), y])).mean())
            by_read, dR, db = linear_gradient(read, R, weight * (p - one_hot(y, N_CLASSES)) / n)
            by_inside, dW = units[i].backward(c_out * (by_read @ W.T))
            by_z = c_skip * by_read + c_in * by_inside
            dW += (c_out * logits).T @ by_read + one_hot(y, N_CLASSES).T @ by_z
            by_W, by_R, by_b = by_W + dW, by_R + dR, by_b + db
            units[i].optimizer.step(units[i].gradients)
        of_shared.step([*(unit_gradient(w, by_W) for w in embedding), by_R, by_b])
        seen.append(loss)
    found = train(method, data)
    np.testing.assert_allclose([of["loss"] for of in found], seen, rtol=1e-6)
    assert_weights(method.net.labels, shared, rtol=1e-6, atol=1e-8)
    for module, unit_ in zip(method.units, units, strict=True):
        assert_weights(module, unit_.weights, rtol=1e-6, atol=1e-8)
