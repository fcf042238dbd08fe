"""PEPITA against an example worked out in numpy, its sign, and a slow form of its convolutional rule."""

from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from bench.methods.targets.pepita import Pepita
from torch import Tensor

from bench import Batch, Progress
from bench.measure.retained import retained_bytes

START = Progress(0, 10, 0)
Make = Callable[..., Any]


@pytest.fixture
def batch64(batch: Batch) -> Batch:
    return Batch(batch.x.double(), batch.y)


def made(make_method: Make, net: str, settings: dict[str, Any], **more: Any) -> Pepita:
    method: Pepita = make_method("pepita", net=net, net_settings=settings, **more)
    method.net.double()
    method.feedback.double()
    return method


def moved(method: Pepita, batch: Batch, progress: Progress = START) -> list[Tensor]:
    """What a step moves the weights by, per unit of step size."""
    before = [p.detach().clone() for p in method.net.parameters()]
    method.train_step(batch, progress)
    return [(p.detach() - old) / method.config.lr for p, old in zip(method.net.parameters(), before, strict=True)]


def softmax(scores: np.ndarray[Any, Any]) -> Any:
    powers = np.exp(scores - scores.max(1, keepdims=True))
    return powers / powers.sum(1, keepdims=True)


def test_two_layers_worked_in_numpy(make_method: Make, batch64: Batch) -> None:
    """Fails where e is divided by N, the sign of a difference turns, or the activity of the first pass is learnt on."""
    method = made(make_method, "mlp", {"width": 7, "depth": 2})
    W1, b1, W2, b2, W3, b3 = (p.detach().numpy().copy() for p in method.net.parameters())
    (feedback,) = method.feedback
    B = feedback.flatten(1).numpy()
    x, onehot = batch64.x.flatten(1).numpy(), np.eye(10)[batch64.y.numpy()]

    def passed(x: Any) -> Any:
        h1 = np.maximum(x @ W1.T + b1, 0)
        h2 = np.maximum(h1 @ W2.T + b2, 0)
        return h1, h2, softmax(h2 @ W3.T + b3)

    h1, h2, out = passed(x)
    x_err = x + (out - onehot) @ B
    g1, g2, out_err = passed(x_err)
    d1, d2, d3 = h1 - g1, h2 - g2, out_err - onehot
    pairs = [(d1, x_err), (d2, g1), (d3, g2)]
    expected = [-of / len(x) for d, below in pairs for of in (d.T @ below, d.sum(0))]
    for found, by_hand in zip(moved(method, batch64), expected, strict=True):
        np.testing.assert_allclose(found.numpy(), by_hand, rtol=1e-9, atol=1e-12)


def test_convolutions_position_by_position(make_method: Make, batch64: Batch) -> None:
    """Averages over positions; the one linear layer behind them has the error of the first pass."""
    method = made(make_method, "cnn", {"width": 2, "depth": 2})
    weights = [p.detach().clone() for p in method.net.parameters()]
    W1, b1, W2, b2, W3, b3 = weights
    (feedback,) = method.feedback
    x, onehot = batch64.x, F.one_hot(batch64.y, 10).double()

    def passed(x: Tensor) -> tuple[Tensor, Tensor, Tensor, Tensor]:
        h1 = F.conv2d(x, W1, b1, padding=1).relu()
        p1 = F.max_pool2d(h1, 2)
        h2 = F.conv2d(p1, W2, b2, padding=1).relu()
        return h1, p1, h2, (h2.flatten(1) @ W3.T + b3).softmax(1)

    h1, _, h2, out = passed(x)
    x_err = x + torch.tensordot(out - onehot, feedback, 1)
    g1, p1, g2, _ = passed(x_err)

    def correlated(d: Tensor, below: Tensor) -> list[Tensor]:
        padded, (_, _, rows, columns) = F.pad(below, (1, 1, 1, 1)), d.shape
        W, b = torch.zeros(d.shape[1], below.shape[1], 3, 3).double(), torch.zeros(d.shape[1]).double()
        for i in range(rows):
            for j in range(columns):
                W += torch.einsum("no,nckl->ockl", d[:, :, i, j], padded[:, :, i : i + 3, j : j + 3])
                b += d[:, :, i, j].sum(0)
        return [-of / (rows * columns * len(d)) for of in (W, b)]

    e = out - onehot
    last = [-(e.T @ g2.flatten(1)) / len(x), -e.sum(0) / len(x)]
    expected = [*correlated(h1 - g1, x_err), *correlated(h2 - g2, p1), *last]
    for found, slow in zip(moved(method, batch64), expected, strict=True):
        torch.testing.assert_close(found, slow, rtol=1e-9, atol=1e-12)


def test_goes_downhill_where_f_is_against_the_weights(make_method: Make, batch64: Batch) -> None:
    """F = -s pinv(W_1) W_2^T makes the first layer's step -s times the gradient, to first order in s; F = +s climbs.

    h - h^err = s (W_2^T e) 1[h > 0] then. It is this way round that weights turn in training, as the paper reports.
    """
    signs = []
    for s in (1e-3, -1e-3):
        method = made(make_method, "mlp", {"width": 12, "depth": 1})
        W1, _, W2, _ = (p.detach().clone() for p in method.net.parameters())
        (feedback,) = method.feedback
        with torch.no_grad():
            feedback.copy_((-s * torch.linalg.pinv(W1) @ W2.T).T.view_as(feedback))
        loss = F.cross_entropy(method.net(batch64.x), batch64.y)
        gradient, *_ = torch.autograd.grad(loss, method.net.blocks[0].parameters())
        step = moved(method, batch64)[0]
        signs.append(float(F.cosine_similarity(-step.flatten(), gradient.flatten(), 0)))
    assert signs == pytest.approx([1.0, -1.0], abs=0.02)


@pytest.mark.parametrize("net", ["mlp", "cnn"])
def test_retains_nothing(make_method: Make, batch: Batch, net: str) -> None:
    method = make_method("pepita", net=net)
    assert retained_bytes(lambda: method.train_step(batch, START)) == 0


def test_feedback_is_he_uniform_at_a_twentieth(make_method: Make) -> None:
    (feedback,) = make_method("pepita").feedback
    bound = 0.05 * (6 / 64) ** 0.5
    assert 0.99 * bound < float(feedback.abs().max()) <= bound
    assert abs(float(feedback.mean())) < 0.1 * bound


def test_step_size_falls_after_60_and_90_percent(make_method: Make, batch64: Batch) -> None:
    sizes = []
    for step in (0, 5, 6, 8, 9):
        method = made(make_method, "mlp", {"width": 5, "depth": 1}, momentum=0.0)
        sizes.append(float(moved(method, batch64, Progress(step, 10, 0))[0].norm()))
    assert [size / sizes[0] for size in sizes] == pytest.approx([1, 1, 0.1, 0.1, 0.01])


def test_scores_are_the_plain_nets(make_method: Make, batch: Batch) -> None:
    method = make_method("pepita")
    method.train_step(batch, START)
    assert torch.equal(method.predict(batch.x), method.net(batch.x).detach())
