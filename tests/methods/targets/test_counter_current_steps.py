"""Whole steps of counter-current learning, beside its equations in numpy, weight for weight, in both nets."""

from collections.abc import Callable
from typing import Any

import numpy as np
import pytest

from tests.methods.rederived import (
    SGD,
    Array,
    conv,
    conv_gradient,
    cross_entropy,
    linear,
    linear_gradient,
    max_pool,
    max_pool_gradient,
    one_hot,
    relu,
)
from tests.methods.whole_steps import (
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


def elu(a: Array) -> Array:
    return np.where(a > 0, a, np.expm1(a))


def slope(a: Array) -> Array:
    return np.where(a > 0, 1.0, np.exp(np.minimum(a, 0)))


def dot(h: Array, b: Array, Y: Array) -> tuple[Array, Array]:
    """128 / n mean (S - Y)^2: gradients by rows of h and of b."""
    wrong = 128 / h.shape[1] * 2 * (h @ b.T - Y) / Y.size
    return wrong @ b, wrong.T @ h


def cosine(h: Array, b: Array, Y: Array) -> tuple[Array, Array]:
    """The same of rows of norm 1 without its factor, and half the mean squares of H H^T - I and B B^T - I."""
    lengths = [np.sqrt((rows**2).sum(1, keepdims=True)) for rows in (h, b)]
    H, B = h / lengths[0], b / lengths[1]
    wrong = 2 * (H @ B.T - Y) / Y.size
    by = [wrong @ B, wrong.T @ H]
    for k, rows in enumerate((H, B)):
        spread = rows @ rows.T - np.eye(len(rows))
        by[k] = by[k] + 0.5 * 2 * 2 * spread @ rows / len(rows) ** 2
        by[k] = (by[k] - rows * (rows * by[k]).sum(1, keepdims=True)) / lengths[k]
    return by[0], by[1]


class Part:
    """Weights of one layer or mirror with its own SGD: gradients are centred, then clipped, then enter the velocity."""

    def __init__(self, weights: list[Array], centred: bool, lr: float, momentum: float, clip: float) -> None:
        self.weights, self.centred, self.clip = weights, centred, clip
        self.optimiser = SGD(weights, lr, momentum)

    def step(self, gradients: list[Array]) -> None:
        if self.centred:
            gradients = [g - g.mean(tuple(range(1, g.ndim)), keepdims=True) if g.ndim > 1 else g for g in gradients]
        norm = np.sqrt(sum((g**2).sum() for g in gradients))
        by = min(1.0, self.clip / (norm + 1e-6))
        self.optimiser.step([g * by for g in gradients])


def repeated(b: Array, shape: tuple[int, ...]) -> Array:
    """Each value over its window: rows i of the larger map see row floor(i size / larger size)."""
    for axis, size in zip((2, 3), shape[1:], strict=True):
        b = b.take(np.arange(size) * b.shape[axis] // size, axis)
    return b


def fed_back(V: Array, above: Array, shape: tuple[int, ...]) -> Array:
    """V b before its activation: linear, or the transpose of a convolution."""
    if V.ndim == 2:
        return (above @ V.T).reshape(len(above), *shape)
    above = repeated(above, shape)
    back, *_ = conv_gradient(np.zeros((len(above), *shape)), V, above)
    return back


SETTINGS: dict[str, dict[str, Any]] = {
    "defaults": {},
    "one by one": {"pairs": "batch", "loss": "cosine", "momentum": 0.5, "lr": 0.3, "clip": 0.2},
    "unclipped": {"loss": "dot", "clip": 1e6, "lr": 0.01},
}


@pytest.mark.parametrize("net", ON)
@pytest.mark.parametrize("settings", SETTINGS.values(), ids=SETTINGS)
def test_counter_current(make_method: Make, net: str, settings: dict[str, Any]) -> None:
    """Catches Nesterov, centring behind clipping or where the loss is not cosine, a clip over the whole net, a centred
    bias, weight decay, mirrors that learn from what layers give after their step, or from new signals.
    """
    method = in_double(make_method("counter-current", task=colour_task(net), **settings))
    loss = settings.get("loss") or {"mlp": "dot", "cnn": "cosine"}[net]
    momentum = settings.get("momentum", {"dot": 0.0, "cosine": 0.8}[loss])
    of = loss == "cosine", settings.get("lr", 1.0), momentum, settings.get("clip", 1.0)
    blocks = numpy_blocks(method.net)
    parts = [Part(block.weights, *of) for block in blocks]
    mirrors = [Part(numbers(mirror), *of) for mirror in method.feedback]
    shapes = [mirror.shape for mirror in method.feedback]
    pulls = {"dot": dot, "cosine": cosine}[loss]
    data = batches(4)
    train(method, data)
    for tx, ty in data:
        h, y = number(tx), ty.numpy()
        signals = [np.eye(N_CLASSES)]
        for mirror, shape in zip(reversed(mirrors), reversed(shapes), strict=True):
            signals.insert(0, elu(fed_back(mirror.weights[0], signals[0], shape)))
        for k, block in enumerate(blocks[:-1]):
            a = (conv if block.W.ndim == 4 else linear)(h, block.W, block.b)
            z = max_pool(a) if block.pool else a
            seen = elu(z)

            def pairs(b: Array, seen: Array = seen, y: Any = y) -> tuple[Array, Array]:
                rows, others = seen.reshape(len(seen), -1), b.reshape(len(b), -1)
                if settings.get("pairs") != "batch":
                    return pulls(rows, others, one_hot(y, N_CLASSES))
                by_rows, by_others = pulls(rows, others[y], np.eye(len(y)))
                return by_rows, one_hot(y, N_CLASSES).T @ by_others

            delta = pairs(signals[k])[0].reshape(z.shape) * slope(z)
            if block.pool:
                delta = max_pool_gradient(a, delta)
            _, *gradients = (conv_gradient if block.W.ndim == 4 else linear_gradient)(h, block.W, delta)
            parts[k].step(gradients)
            V = mirrors[k].weights[0]
            below = fed_back(V, signals[k + 1], shapes[k])
            by_below = pairs(elu(below))[1].reshape(below.shape) * slope(below)
            if V.ndim == 2:
                mirrors[k].step([by_below.reshape(N_CLASSES, -1).T @ signals[k + 1]])
            else:
                mirrors[k].step([conv_gradient(by_below, V, repeated(signals[k + 1], shapes[k]))[1]])
            h = relu(seen)
        _, e = cross_entropy(blocks[-1].forward(h), y)
        blocks[-1].through(e)
        parts[-1].step(blocks[-1].gradients)
    assert_weights(method.net, blocks, rtol=1e-8, atol=1e-10)
    assert_weights(method.feedback, [mirror.weights[0] for mirror in mirrors], rtol=1e-8, atol=1e-10)


@pytest.mark.parametrize("name", ["counter-current", "target-propagation"])
def test_mirrors_have_draws_of_their_own(make_method: Make, name: str) -> None:
    """Catches a mirror that starts at the transpose of its layer, one draw for all seeds, and a mirror with a shift."""
    for net in ON:
        first, other = (make_method(name, task=colour_task(net), seed=seed) for seed in (0, 1))
        assert len(numbers(first.feedback)) == len(first.net.blocks) - 1
        for block, V, W in zip(first.net.blocks[1:], numbers(first.feedback), numbers(other.feedback), strict=True):
            own = next(number(p) for p in block.parameters() if p.dim() > 1)
            own = own.T if own.ndim == 2 else own
            assert abs(np.corrcoef(V.ravel(), own.ravel())[0, 1]) < 0.9
            assert not np.allclose(V, W, rtol=0.1)
