"""The forward-gradient family over whole steps on 3-channel images: all weights beside numpy, AdamW included.

Slopes along directions are taken here as inner products with the true gradient, by a backward pass in numpy, which no
rule of the family has. Each test's words name the mistakes that it catches.
"""

from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
import pytest
import torch
from bench.methods._shared.directions import draw

from tests.methods.local.derived import Pred
from tests.methods.rederived import (
    AdamW,
    Array,
    Block,
    cross_entropy,
    linear,
    linear_gradient,
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
    weights_of,
)

Make = Callable[..., Any]
DOUBLE = torch.empty(0, dtype=torch.float64)
TANH = pytest.param("mlp", {"activation": "tanh"}, id="mlp-tanh")
with_tanh = pytest.mark.parametrize(("net", "of_net"), [*((net, {}) for net in ON), TANH])


def drawn(settings: dict[str, Any], shape: tuple[int, ...], noise: torch.Generator) -> Array:
    if settings.get("directions") == "rademacher":
        return number(draw(shape, DOUBLE, "rademacher", noise))
    return number(torch.randn(shape, generator=noise, dtype=torch.float64))


def adamw(settings: dict[str, Any], parameters: Sequence[Array]) -> AdamW:
    return AdamW(parameters, settings.get("lr", 1e-3), settings.get("weight_decay", 1e-3))


def gradient(blocks: Sequence[Block], e: Array) -> list[Array]:
    for block in reversed(blocks):
        e = block.backward(e)
    return [g for block in blocks for g in block.gradients]


def along(direction: Array, of: Sequence[Array]) -> tuple[float, list[Array]]:
    """The inner product of a flat direction with a gradient, and the direction in the gradient's parts."""
    parts, place = [], 0
    for g in of:
        parts.append(direction[place : place + g.size].reshape(g.shape))
        place += g.size
    assert place == direction.size
    return sum(float((g * v).sum()) for g, v in zip(of, parts, strict=True)), parts


def per_example(slopes: Array, u: Array) -> Array:
    return slopes.reshape(-1, *[1] * (u.ndim - 1)) * u


def inner(a: Array, b: Array) -> Array:
    """Of each example."""
    return np.asarray((a * b).reshape(len(a), -1).sum(1))


FORWARD: list[dict[str, Any]] = [
    {},
    {"k": 3, "directions": "rademacher", "lr": 0.03, "weight_decay": 0.2},
    {"space": "weight"},
    {"space": "weight", "k": 3, "directions": "rademacher", "lr": 0.03, "weight_decay": 0.2},
]


def activity_step(blocks: Sequence[Block], x: Array, y: Any, settings: dict[str, Any], noise: Any) -> list[Array]:
    """delta_l,n = 1/k sum_i c_in u_il,n with c_in = sum_l dL_n/da_l,n . u_il,n; u of units that a ReLU holds is 0."""
    h, k, N = x, settings.get("k", 1), len(y)
    u = []
    for block in blocks:
        h = block.forward(h)
        of_block = drawn(settings, (k, *block.a.shape), noise)
        u.append(of_block * (block.a > 0) if block.act == "relu" else of_block)
    _, e = cross_entropy(h, y)
    delta, slopes = N * e, np.zeros((k, N))  # of each example's own loss
    for block, of_block in zip(reversed(blocks), reversed(u), strict=True):
        at = block.before_activation(delta)
        slopes += np.array([inner(at, one) for one in of_block])
        delta = block.through(at)
    for block, of_block in zip(blocks, u, strict=True):
        block.through(sum(per_example(c, one) for c, one in zip(slopes, of_block, strict=True)) / (k * N))
    return [g for block in blocks for g in block.gradients]


def weight_step(blocks: Sequence[Block], x: Array, y: Any, settings: dict[str, Any], noise: Any) -> list[Array]:
    """1/k sum_i (grad L . v_i) v_i."""
    V = drawn(settings, (settings.get("k", 1), sum(w.size for w in weights_of(blocks))), noise)
    h = x
    for block in blocks:
        h = block.forward(h)
    G = gradient(blocks, cross_entropy(h, y)[1])
    found = [along(v, G) for v in V]
    return [np.asarray(sum(c * parts[j] for c, parts in found) / len(V)) for j in range(len(G))]


@with_tanh
@pytest.mark.parametrize("settings", FORWARD, ids=str)
def test_forward_gradient(make_method: Make, net: str, of_net: dict[str, Any], settings: dict[str, Any]) -> None:
    """adam for adamw; one slope for the whole batch in place of each example's; a slope of one layer alone; noise of
    units that are off, or no noise of units under a tanh; a sum over directions for the mean; activities for weights.
    """
    method = in_double(make_method("forward-gradient", task=colour_task(net, **of_net), **settings))
    blocks, noise = numpy_blocks(method.net), torch.Generator().set_state(method.noise.get_state())
    step = adamw(settings, weights_of(blocks))
    one = weight_step if settings.get("space") == "weight" else activity_step
    data = batches(4)
    for x, y in data:
        step.step(one(blocks, number(x), y.numpy(), settings, noise))
    train(method, data)
    assert_weights(method.net, blocks)


# ---- local forward gradient -----------------------------------------------------------------------------------------


@with_tanh
@pytest.mark.parametrize("settings", FORWARD, ids=str)
def test_local_forward_gradient(make_method: Make, net: str, of_net: dict[str, Any], settings: dict[str, Any]) -> None:
    """adam for adamw; heads that do not start at zero, do not learn, or learn from a perturbed block; slopes of the
    last loss; a tenth of the step, or an estimate, for the read-out; a sum over directions for the mean.
    """
    method = in_double(make_method("local-forward-gradient", task=colour_task(net, **of_net), **settings))
    blocks, noise = numpy_blocks(method.net), torch.Generator().set_state(method.noise.get_state())
    assert not any(w.any() for w in numbers(method.heads))
    heads = numbers(method.heads)
    step, k = adamw(settings, [*weights_of(blocks), *heads]), settings.get("k", 1)
    data = batches(5)
    seen = []
    for x, labels in data:
        h, y, N = number(x), labels.numpy(), len(labels)
        of_blocks, of_heads, losses = list[Array](), list[Array](), []
        for b, block in enumerate(blocks[:-1]):
            if settings.get("space") == "weight":
                V = drawn(settings, (k, sum(w.size for w in block.weights)), noise)
            h = block.forward(h)
            if settings.get("space") != "weight":
                u = drawn(settings, (k, *block.a.shape), noise)
                u = u * (block.a > 0) if block.act == "relu" else u
            W, bias = heads[2 * b : 2 * b + 2]
            loss, e = cross_entropy(linear(h, W, bias), y)
            losses.append(loss)
            back, *of_head = linear_gradient(h, W, e)
            of_heads += of_head
            if settings.get("space") == "weight":
                block.backward(back)
                found = [along(v, block.gradients) for v in V]
                of_blocks += [sum(c * parts[j] for c, parts in found) / k for j in (0, 1)]
            else:
                at = block.before_activation(N * back)
                block.through(sum(per_example(inner(at, one), one) for one in u) / (k * N))
                of_blocks += block.gradients
        loss, e = cross_entropy(blocks[-1].forward(h), y)
        blocks[-1].backward(e)
        step.step([*of_blocks, *blocks[-1].gradients, *of_heads])
        seen.append((loss, np.mean(losses)))
    found = train(method, data)
    assert_weights(method.net, blocks)
    assert_weights(method.heads, heads)
    np.testing.assert_allclose([(of["loss"], of["local_loss"]) for of in found], seen, rtol=1e-9)


# ---- guided forward gradient ----------------------------------------------------------------------------------------

GUIDED: list[dict[str, Any]] = [
    {},
    {"space": "weight"},
    {"head": "mlp", "head_units": 5, "lr": 0.03, "weight_decay": 0.2},
    {"head": "mlp", "head_units": 5, "space": "weight"},
    {"pool": 12, "lr": 0.03},
]
ON_MAPS: list[dict[str, Any]] = [{"head": "conv", "pool": 12}, {"head": "conv", "space": "weight"}]


def least_window(shape: Sequence[int], limit: int) -> int:
    """The least k for which a map pooled over k x k windows has at most `limit` entries; the whole map if none is."""
    if len(shape) == 1:
        return 1
    fits = [k for k in range(1, shape[1]) if shape[0] * -(-shape[1] // k) * -(-shape[2] // k) <= limit]
    return fits[0] if fits else shape[1]


def scaled_or_none(over: Array, under: Array) -> Array:
    """over / under, and 0 where there is no guess."""
    return np.divide(over, under, out=np.zeros_like(over), where=under > 0)


@pytest.mark.parametrize(
    ("net", "settings"), [*((net, of) for net in ON for of in GUIDED), *(("cnn", of) for of in ON_MAPS)], ids=str
)
def test_guided_forward_gradient(make_method: Make, net: str, settings: dict[str, Any]) -> None:
    """adam for adamw; settings of heads without effect: units, kind, pooling; heads without their ReLU; a guess that is
    not divided by its squared length; one slope for the whole batch where each example has its own; the local
    gradient itself for the guess; a head that stands still.
    """
    method = in_double(make_method("guided-forward-gradient", task=colour_task(net), **settings))
    blocks = numpy_blocks(method.net)
    shapes, h = [], np.zeros((1, 3, 6, 6))
    for block in blocks[:-1]:
        h = block.forward(h)
        shapes.append(h.shape[1:])
    kind, limit = settings.get("head", "linear"), settings.get("pool", 2048)
    heads = [
        Pred(numbers(head), kind, least_window(shape, limit))
        for head, shape in zip(method.heads, shapes, strict=True)
    ]  # fmt: skip
    assert len(heads) == len(blocks) - 1
    if kind == "mlp":
        assert all(len(head.weights[0]) == settings["head_units"] for head in heads)
    step = adamw(settings, weights_of(blocks) + [w for head in heads for w in head.weights])
    data = batches(5)
    for x, labels in data:
        y, N = labels.numpy(), len(labels)
        outputs, h = [], number(x)
        for block in blocks:
            h = block.forward(h)
            outputs.append(h)
        guesses = [head(z, y)[1] for head, z in zip(heads, outputs[:-1], strict=True)]
        # the true gradient by the output of each block, and by its weights
        _, delta = cross_entropy(h, y)
        by_output, by_weights = list[Array](), list[list[Array]]()
        for block in reversed(blocks):
            by_output.insert(0, delta)
            delta = block.backward(delta)
            by_weights.insert(0, block.gradients)
        moves = list[Array]()
        for block, guess, G, of_block in zip(blocks[:-1], guesses, by_output[:-1], by_weights[:-1], strict=True):
            if settings.get("space") == "weight":
                block.backward(guess)
                v = block.gradients
                lengths = sum((g**2).sum() for g in v)
                slope = sum((g * one).sum() for g, one in zip(of_block, v, strict=True)) / (lengths or 1.0)
                moves += [slope * one for one in v]
            else:
                v_n, G_n = N * guess, N * G.reshape(guess.shape)
                w = scaled_or_none(inner(G_n, v_n), inner(v_n, v_n))
                block.backward(per_example(w, v_n) / N)
                moves += block.gradients
        step.step([*moves, *by_weights[-1], *(g for head in heads for g in head.gradients)])
    train(method, data)
    assert_weights(method.net, blocks, rtol=1e-8, atol=1e-10)
    assert_weights(method.heads, [w for head in heads for w in head.weights], rtol=1e-8, atol=1e-10)


@pytest.mark.parametrize("head", ["mlp", "conv"])
def test_guides_depend_on_the_seed(make_method: Make, head: str) -> None:
    """Heads that are the same for every seed; a read-out of a head that does not start at zero."""
    one, other, again = (
        make_method("guided-forward-gradient", task=colour_task("cnn"), head=head, seed=seed) for seed in (0, 1, 0)
    )
    for a, b, c in zip(one.heads, other.heads, again.heads, strict=True):
        first, *_, weight, bias = zip(a.parameters(), b.parameters(), c.parameters(), strict=True)
        assert not torch.equal(first[0], first[1])
        assert torch.equal(first[0], first[2])
        assert not any(p.any() for p in (*weight, *bias))


@pytest.mark.parametrize("space", ["weight", "activity"])
@pytest.mark.parametrize("name", ["forward-gradient", "local-forward-gradient"])
def test_directions_depend_on_the_seed_and_change_with_each_step(
    make_method: Make, name: str, space: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Directions that are the same for every seed, or in every step."""
    (batch,) = batches(1)
    found = []
    for seed in (0, 1):
        method = in_double(make_method(name, task=colour_task("mlp"), space=space, seed=seed))
        for _ in range(2):
            taken: list[torch.Tensor] = []
            with monkeypatch.context() as patch:
                patch.setattr(method, "draw", lambda *of, draw=method.draw, to=taken: to.append(draw(*of)) or to[-1])
                method.train_step(batch, None)
            found.append(torch.cat([t.flatten() for t in taken]))
    for k in range(4):
        for j in range(k):
            assert not torch.equal(found[k], found[j])
