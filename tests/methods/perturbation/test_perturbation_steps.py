"""The perturbation family over whole steps on 3-channel images: all weights beside numpy, optimisers included.

Nothing is evaluated together here: members of a population, directions and layers come one after another. Draws are
those of the same generator. Each test's words name the mistakes that it catches.
"""

from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
import pytest
import torch
from bench.methods._shared.directions import draw
from scipy.stats import rankdata

from tests.methods.rederived import SGD, Adam, Array, Block, conv, cross_entropy, linear, max_pool, relu
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
any_net = pytest.mark.parametrize("net", ON)
DOUBLE = torch.empty(0, dtype=torch.float64)
# a difference of losses has 1e-16 over sigma^2 of rounding, of which Adam makes steps where the gradient is small
CLOSE = {"rtol": 1e-6, "atol": 1e-8}


def twin(method: Any) -> torch.Generator:
    return torch.Generator().set_state(method.noise.get_state())


def normal(shape: Sequence[int], noise: torch.Generator) -> Array:
    return number(torch.randn(*shape, generator=noise, dtype=torch.float64))


def signs(shape: tuple[int, ...], noise: torch.Generator) -> Array:
    return number(draw(shape, DOUBLE, "rademacher", noise))


def loss(blocks: Sequence[Block], x: Array, y: Any, shift: Sequence[Array] | None = None) -> float:
    """Mean cross-entropy with all weights shifted."""
    parts = iter(shift or [np.zeros_like(w) for w in weights_of(blocks)])
    for block in blocks:
        x = Block(block.W + next(parts), block.b + next(parts), block.act, block.pool).forward(x)
    return cross_entropy(x, y)[0]


def optimizer(name: str, parameters: Sequence[Array], lr: float) -> Adam | SGD:
    """Adam without decay, or gradient descent, with momentum 0.9 or none."""
    return Adam(parameters, lr) if name == "adam" else SGD(parameters, lr, {"momentum": 0.9, "sgd": 0.0}[name])


def combined(votes: Sequence[float], directions: Sequence[Sequence[Array]]) -> list[Array]:
    """sum_j votes_j z_j."""
    parts = zip(*directions, strict=True)
    return [np.asarray(sum(vote * z for vote, z in zip(votes, part, strict=True))) for part in parts]


SPSA: list[dict[str, Any]] = [
    {},
    {"sides": "one", "eps": 0.05},
    {"n": 3, "lr": 0.02, "directions": "gaussian"},
    {"sides": "one", "n": 2, "eps": 0.05, "directions": "gaussian"},
]


@any_net
@pytest.mark.parametrize("settings", SPSA, ids=str)
def test_spsa(make_method: Make, net: str, settings: dict[str, Any]) -> None:
    """A slope over eps where both sides were measured, or over 2 eps where one was; one side for two; a step that
    leaves the perturbation in; weights that move between directions; a sum over directions for the mean; a direction
    that is not the one measured; an optimiser, where the paper has none; gaussian for rademacher.
    """
    method = in_double(make_method("spsa", task=colour_task(net), **settings))
    blocks, noise = numpy_blocks(method.net), twin(method)
    eps, n, lr = settings.get("eps", 1e-3), settings.get("n", 1), settings.get("lr", 4e-3)
    drawn = normal if settings.get("directions") == "gaussian" else signs
    data = batches(4)
    seen = []
    for batch in data:
        x, y = number(batch.x), batch.y.numpy()
        moves, losses = [], []
        for _ in range(n):
            z = [drawn(w.shape, noise) for w in weights_of(blocks)]
            above = loss(blocks, x, y, [eps * v for v in z])
            if settings.get("sides") == "one":
                below, width = loss(blocks, x, y), eps
                losses.append(below)
            else:
                below, width = loss(blocks, x, y, [-eps * v for v in z]), 2 * eps
                losses.append((above + below) / 2)
            moves.append([(above - below) / width * v for v in z])
        for w, of in zip(weights_of(blocks), zip(*moves, strict=True), strict=True):
            w -= lr / n * sum(of)
        seen.append(np.mean(losses))
    found = train(method, data)
    assert_weights(method.net, blocks, **CLOSE)
    np.testing.assert_allclose([step["loss"] for step in found], seen, rtol=1e-9)


WEIGHTS: list[dict[str, Any]] = [
    {},
    {"k": 3, "sigma": 0.05, "lr": 0.02, "directions": "rademacher", "optimizer": "momentum"},
    {"k": 2, "sigma": 0.05, "lr": 0.02, "optimizer": "sgd"},
]


@any_net
@pytest.mark.parametrize("settings", WEIGHTS, ids=str)
def test_weight_perturbation(make_method: Make, net: str, settings: dict[str, Any]) -> None:
    """adamw for adam; two sides for one; a slope without sigma, or over sigma^2; a sum over directions for the mean;
    the clean loss taken for weights that have moved; a setting of directions or optimiser without effect.
    """
    method = in_double(make_method("weight-perturbation", task=colour_task(net), **settings))
    blocks, noise = numpy_blocks(method.net), twin(method)
    k, sigma = settings.get("k", 16), settings.get("sigma", 1e-3)
    drawn = signs if settings.get("directions") == "rademacher" else normal
    steps = optimizer(settings.get("optimizer", "adam"), weights_of(blocks), settings.get("lr", 3e-3))
    data = batches(4)
    for batch in data:
        x, y = number(batch.x), batch.y.numpy()
        stacked = [drawn((k, *w.shape), noise) for w in weights_of(blocks)]
        directions = [[z[j] for z in stacked] for j in range(k)]
        clean = loss(blocks, x, y)
        slopes = [(loss(blocks, x, y, [sigma * v for v in z]) - clean) / sigma for z in directions]
        steps.step(combined([slope / k for slope in slopes], directions))
    train(method, data)
    assert_weights(method.net, blocks, **CLOSE)


def shaped(losses: Array, how: str) -> Array:
    """Salimans et al.: ranks between -1/2 and 1/2. Sarkar et al.: (loss - mean) / sqrt(variance + 1e-5)."""
    if how == "centred-ranks":
        return np.asarray((rankdata(losses) - 1) / (len(losses) - 1) - 0.5)
    if how == "z-score":
        return np.asarray((losses - losses.mean()) / np.sqrt(losses.var() + 1e-5))
    return losses


def population_gradient(
    blocks: Sequence[Block], x: Array, y: Any, noise: Sequence[Sequence[Array]], sigma: float, how: str
) -> tuple[list[Array], float]:
    """1 / (k sigma) sum_i F_i E_i over members E_j and -E_j, and the population's mean loss."""
    members = [[sign * e for e in of] for sign in (1, -1) for of in noise]
    losses = np.array([loss(blocks, x, y, [sigma * e for e in member]) for member in members])
    return combined(shaped(losses, how) / (len(members) * sigma), members), losses.mean()


STRATEGIES: list[dict[str, Any]] = [
    {},
    {"pairs": 3, "sigma": 0.1, "lr": 0.02, "shaping": "raw", "optimizer": "momentum"},
    {"pairs": 4, "sigma": 0.1, "lr": 0.02, "shaping": "z-score", "directions": "rademacher", "optimizer": "sgd"},
]


@any_net
@pytest.mark.parametrize("settings", STRATEGIES, ids=str)
def test_evolution_strategies(make_method: Make, net: str, settings: dict[str, Any]) -> None:
    """adamw for adam; both of a pair on one side; signs that climb; ranks from 0, or between 0 and 1, or by the pair;
    a step without 1 / sigma, or over pairs for members; noise that is shared by the pairs.
    """
    method = in_double(make_method("evolution-strategies", task=colour_task(net), **settings))
    blocks, noise = numpy_blocks(method.net), twin(method)
    pairs, sigma = settings.get("pairs", 16), settings.get("sigma", 0.02)
    drawn = signs if settings.get("directions") == "rademacher" else normal
    steps = optimizer(settings.get("optimizer", "adam"), weights_of(blocks), settings.get("lr", 3e-3))
    data = batches(4)
    seen = []
    for batch in data:
        stacked = [drawn((pairs, *w.shape), noise) for w in weights_of(blocks)]
        gradient, mean = population_gradient(
            blocks, number(batch.x), batch.y.numpy(), [[e[j] for e in stacked] for j in range(pairs)], sigma,
            settings.get("shaping", "centred-ranks"),
        )  # fmt: skip
        steps.step(gradient)
        seen.append(mean)
    found = train(method, data)
    assert_weights(method.net, blocks, **CLOSE)
    np.testing.assert_allclose([step["loss"] for step in found], seen, rtol=1e-9)


LOW_RANK: list[dict[str, Any]] = [
    {},
    {"pairs": 3, "rank": 2, "sigma": 0.1, "lr": 0.02, "shaping": "raw", "optimizer": "momentum"},
    {"pairs": 4, "rank": 3, "sigma": 0.1, "lr": 0.02, "shaping": "centred-ranks", "optimizer": "sgd"},
]


@any_net
@pytest.mark.parametrize("settings", LOW_RANK, ids=str)
def test_low_rank_evolution(make_method: Make, net: str, settings: dict[str, Any]) -> None:
    """adamw or gradient descent for adam; ranks for z-scores, or a deviation with k - 1; noise without 1 / sqrt(r); a
    bias that gets a matrix's scale, or no noise; both of a pair on one side; a kernel cut into another matrix than
    (m, channels x kernel).
    """
    method = in_double(make_method("low-rank-evolution", task=colour_task(net), **settings))
    blocks, noise = numpy_blocks(method.net), twin(method)
    pairs, sigma, r = settings.get("pairs", 32), settings.get("sigma", 0.02), settings.get("rank", 1)
    steps = optimizer(settings.get("optimizer", "adam"), weights_of(blocks), settings.get("lr", 3e-3))
    data = batches(4)
    for batch in data:
        members: list[list[Array]] = [[] for _ in range(pairs)]
        for block in blocks:
            m, n = len(block.W), block.W[0].size
            A, B, of_bias = (normal(shape, noise) for shape in ((pairs, m, r), (pairs, n, r), (pairs, m)))
            for j, member in enumerate(members):
                member += [(A[j] @ B[j].T / np.sqrt(r)).reshape(block.W.shape), of_bias[j]]
        gradient, _ = population_gradient(
            blocks, number(batch.x), batch.y.numpy(), members, sigma, settings.get("shaping", "z-score")
        )
        steps.step(gradient)
    train(method, data)
    assert_weights(method.net, blocks, **CLOSE)


# ---- node perturbation ----------------------------------------------------------------------------------------------


class Passed:
    """One pass with noise xi_l on the pre-activations: the layers' inputs, pre-activations, each example's loss."""

    def __init__(self, blocks: Sequence[Block], x: Array, y: Any, xi: dict[int, Array]) -> None:
        self.inputs, self.a = list[Array](), list[Array]()
        for k, block in enumerate(blocks):
            self.inputs.append(x)
            a = (conv if block.W.ndim == 4 else linear)(x, block.W, block.b) + xi.get(k, 0.0)
            self.a.append(a)
            x = {"relu": relu, "tanh": np.tanh, "identity": np.asarray}[block.act](a)
            x = max_pool(x) if block.pool else x
        self.losses = np.array([cross_entropy(x[n : n + 1], y[n : n + 1])[0] for n in range(len(y))])


def seen_by_units(block: Block, x: Array) -> Array:
    """What a unit sees, a row for each example and position. Shape: (rows, inputs)."""
    if block.W.ndim == 2:
        return x.reshape(len(x), -1)
    r, (H, width) = block.W.shape[2] // 2, x.shape[2:]
    padded = np.pad(x, ((0, 0), (0, 0), (r, r), (r, r)))
    size = block.W.shape[2]
    return np.array([
        image[:, i : i + size, j : j + size].ravel() for image in padded for i in range(H) for j in range(width)
    ])  # fmt: skip


def rows_of(d: Array) -> Array:
    """An error with a row for each example and position."""
    return d if d.ndim == 2 else np.moveaxis(d, 1, -1).reshape(-1, d.shape[1])


def times(per_example: Array, a: Array) -> Array:
    return per_example.reshape(-1, *[1] * (a.ndim - 1)) * a


NODES: list[dict[str, Any]] = [
    {},
    {"form": "iterative"},
    {"form": "activity"},
    {"sigma": 0.05, "lr": 0.02, "directions": "rademacher", "optimizer": "momentum"},
    {"form": "activity", "sigma": 0.05, "decorrelation": 0.1},
    {"form": "noise", "sigma": 0.05, "decorrelation": 0.1, "optimizer": "sgd"},
]


@any_net
@pytest.mark.parametrize("settings", NODES, ids=str)
def test_node_perturbation(make_method: Make, net: str, settings: dict[str, Any]) -> None:
    """adamw for adam; a loss difference of the whole batch for each example's own; sigma for sigma^2; the noisy input
    for the clean one; units counted in one layer alone, or without positions; R on the wrong side of W, its diagonal
    kept, or its step upon inputs that are not decorrelated; a setting of directions or optimiser without effect.
    """
    method = in_double(make_method("node-perturbation", task=colour_task(net), **settings))
    blocks, noise = numpy_blocks(method.net), twin(method)
    sigma, form, eta = settings.get("sigma", 1e-3), settings.get("form", "noise"), settings.get("decorrelation", 0.0)
    drawn = signs if settings.get("directions") == "rademacher" else normal
    W = [block.W.reshape(len(block.W), -1).copy() for block in blocks]  # upon decorrelated inputs
    R = [np.eye(w.shape[1]) for w in W]
    steps = optimizer(settings.get("optimizer", "adam"), [*W, *(block.b for block in blocks)], settings.get("lr", 1e-3))
    data = batches(4)
    for batch in data:
        x, y = number(batch.x), batch.y.numpy()
        clean = Passed(blocks, x, y, {})
        xi = {k: sigma * drawn(a.shape, noise) for k, a in enumerate(clean.a)}
        if form == "iterative":
            change = [Passed(blocks, x, y, {k: xi[k]}).losses - clean.losses for k in xi]
            d = [times(change[k] / sigma**2, xi[k]) for k in xi]
        else:
            noisy = Passed(blocks, x, y, xi)
            d = [times((noisy.losses - clean.losses) / sigma**2, xi[k]) for k in xi]
            if form == "activity":
                moved = [after - before for after, before in zip(noisy.a, clean.a, strict=True)]
                units = sum(a[0].size for a in moved)
                squares = np.array([sum((a[n] ** 2).sum() for a in moved) for n in range(len(y))])
                d = [times(units * (noisy.losses - clean.losses) / squares, a) for a in moved]
        of_weights, of_biases = [], []
        seen = [seen_by_units(block, inputs) for block, inputs in zip(blocks, clean.inputs, strict=True)]
        for k in range(len(blocks)):
            rows = rows_of(d[k])
            of_weights.append(rows.T @ (seen[k] @ R[k].T) / len(y))
            of_biases.append(rows.sum(0) / len(y))
        steps.step([*of_weights, *of_biases])
        for k, block in enumerate(blocks):
            inner = seen[k] @ R[k].T
            correlation = inner.T @ inner / len(inner)
            R[k] = R[k] - eta * (correlation - np.diag(np.diag(correlation))) @ R[k]
            block.W[...] = (W[k] @ R[k]).reshape(block.W.shape)
    train(method, data)
    assert_weights(method.net, blocks, rtol=1e-5, atol=1e-7)
    if eta:
        assert_weights(method.modules()["training_only"], [w for pair in zip(W, R, strict=True) for w in pair], 1e-6)


@pytest.mark.parametrize(
    "name", ["spsa", "weight-perturbation", "node-perturbation", "evolution-strategies", "low-rank-evolution"]
)
def test_directions_depend_on_the_seed_and_change_with_each_step(make_method: Make, name: str) -> None:
    """Directions that are the same for every seed, or in every step."""
    (batch,) = batches(1)
    moved = []
    for seed in (0, 1):
        method = in_double(make_method(name, task=colour_task("mlp"), seed=seed))
        start = [number(p) for p in method.net.parameters()]
        for _ in range(2):
            train(method, [batch])
            moved.append(
                np.concatenate([(number(p) - s).ravel() for p, s in zip(method.net.parameters(), start, strict=True)])
            )
            for p, s in zip(method.net.parameters(), start, strict=True):
                p.data.copy_(torch.as_tensor(s))
    for k in range(4):
        for other in range(k):
            cosine = moved[k] @ moved[other] / (np.linalg.norm(moved[k]) * np.linalg.norm(moved[other]))
            assert abs(cosine) < 0.95
