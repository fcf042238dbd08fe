"""Forward target propagation against an example worked out in numpy, its sign, and local losses one by one."""

from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from bench.methods.targets.forward_target_propagation import ForwardTargetPropagation
from torch import Tensor

from bench import Batch, Net, Progress
from bench.nets.cnn import CNN
from bench.nets.mlp import MLP
from bench.testing import CHECKS, Subject, small_task
from tests.methods.gradients import watched

START = Progress(0, 10, 0)
CLASSES: dict[str, type[Net]] = {"mlp": MLP, "cnn": CNN}
ACTIVATIONS: dict[str, tuple[Callable[[Any], Any], Callable[[Any], Any]]] = {
    "relu": (lambda a: np.maximum(a, 0), lambda a: (a > 0) * 1.0),
    "tanh": (np.tanh, lambda a: 1 - np.tanh(a) ** 2),
}
Make = Callable[..., Any]


@pytest.fixture
def batch64(batch: Batch) -> Batch:
    return Batch(batch.x.double(), batch.y)


def made(make_method: Make, net: str, settings: dict[str, Any], **more: Any) -> ForwardTargetPropagation:
    method: ForwardTargetPropagation = make_method("forward-target-propagation", net=net, net_settings=settings, **more)
    method.net.double()
    method.feedback.double()
    return method


def gradients(method: ForwardTargetPropagation, batch: Batch) -> list[Tensor]:
    """What the optimiser steps along."""
    seen = watched([method.optimizer])
    method.train_step(batch, START)
    return [seen[id(p)] for p in method.net.parameters()]


@pytest.mark.parametrize("activation", ACTIVATIONS)
def test_three_layers_worked_in_numpy(make_method: Make, batch64: Batch, activation: str) -> None:
    """Fails where a target is that of another layer or the difference turns round, where tanh or sigma' is left out,
    where the activity of the second pass is learnt on, where a gradient goes on to the layer below, and without 1 / N.
    """
    method = made(make_method, "mlp", {"width": 7, "depth": 3, "activation": activation}, gamma=0.7)
    sigma, slope = ACTIVATIONS[activation]
    *hidden, (V, c) = (tuple(p.detach().numpy().copy() for p in block.parameters()) for block in method.net.blocks)
    (feedback,) = method.feedback
    G, onehot = feedback.numpy().T, np.eye(10)[batch64.y.numpy()]
    inputs, sums, N = [batch64.x.flatten(1).numpy()], [], len(onehot)
    for W, b in hidden:
        sums.append(inputs[-1] @ W.T + b)
        inputs.append(sigma(sums[-1]))
    powers = np.exp(inputs[-1] @ V.T + c)
    answer = powers / powers.sum(1, keepdims=True)

    tau = inputs[1] + 0.7 * (np.tanh(onehot @ G.T) - np.tanh(answer @ G.T))
    expected = []
    for k, a in enumerate(sums):
        if k > 0:
            W, b = hidden[k]
            tau = sigma(tau @ W.T + b)
        delta = (inputs[k + 1] - tau) * slope(a) / N
        expected += [delta.T @ inputs[k], delta.sum(0)]
    e = (answer - onehot) / N
    expected += [e.T @ inputs[-1], e.sum(0)]
    for found, by_hand in zip(gradients(method, batch64), expected, strict=True):
        np.testing.assert_allclose(found.numpy(), by_hand, rtol=1e-9, atol=1e-12)


def test_convolutions_by_their_local_losses(make_method: Make, batch64: Batch) -> None:
    """1/2 of the squared distance of each map behind its activation, before pooling, by autograd on constants."""
    method = made(make_method, "cnn", {"width": 2, "depth": 3}, gamma=0.5)
    W1, b1, W2, b2, W3, b3, V, c = (p.detach().clone().requires_grad_() for p in method.net.parameters())
    (G,) = method.feedback
    x, y, N = batch64.x, batch64.y, len(batch64.y)

    def layer(h: Tensor, W: Tensor, b: Tensor) -> Tensor:
        return F.conv2d(h, W, b, padding=1).relu()

    h1 = layer(x, W1, b1)
    p1 = F.max_pool2d(h1, 2).detach()
    h2 = layer(p1, W2, b2)
    h3 = layer(h2.detach(), W3, b3)
    scores = F.max_pool2d(h3, 2).detach().flatten(1) @ V.T + c
    answer = scores.detach().softmax(1)
    with torch.no_grad():
        sent = torch.stack(
            [G[y[n]].tanh() - torch.stack([answer[n, k] * G[k] for k in range(10)]).sum(0).tanh() for n in range(N)]
        )
        t1 = h1 + 0.5 * sent
        t2 = layer(F.max_pool2d(t1, 2), W2, b2)
        t3 = layer(t2, W3, b3)
    loss = sum(((h - t) ** 2).sum() / (2 * N) for h, t in ((h1, t1), (h2, t2), (h3, t3))) + F.cross_entropy(scores, y)
    expected = torch.autograd.grad(loss, [W1, b1, W2, b2, W3, b3, V, c])
    for found, slow in zip(gradients(method, batch64), expected, strict=True):
        torch.testing.assert_close(found, slow, rtol=1e-9, atol=1e-12)


def test_goes_downhill_where_g_is_the_transpose_of_the_last_layer(make_method: Make, batch64: Batch) -> None:
    """G = s W_2^T makes the first layer's step gamma s times the gradient, to first order in s; -s climbs."""
    slopes = []
    for s in (1e-4, -1e-4):
        method = made(make_method, "mlp", {"width": 12, "depth": 1, "activation": "tanh"}, gamma=2.0)
        (G,) = method.feedback
        with torch.no_grad():
            G.copy_(s * next(method.net.blocks[1].parameters()))
        loss = F.cross_entropy(method.net(batch64.x), batch64.y)
        gradient, *_ = torch.autograd.grad(loss, list(method.net.blocks[0].parameters()))
        found, *_ = gradients(method, batch64)
        slopes.append(float((found * gradient).sum() / gradient.square().sum()))
        assert float(F.cosine_similarity(found.flatten(), gradient.flatten(), 0)) == pytest.approx(s / 1e-4, abs=1e-6)
    assert slopes == pytest.approx([2e-4, -2e-4], rel=1e-3)


def test_a_right_answer_leaves_hidden_layers_at_rest(make_method: Make, batch64: Batch) -> None:
    """Where the net is sure of the label, targets are what is there already."""
    method = made(make_method, "mlp", {"width": 12, "depth": 2})
    with torch.no_grad():
        weight, bias = method.net.blocks[-1].parameters()
        weight.zero_()
        bias.copy_(1e3 * F.one_hot(torch.tensor(4), 10))
    *hidden, _, _ = gradients(method, Batch(batch64.x, torch.full_like(batch64.y, 4)))
    assert max(float(g.abs().max()) for g in hidden) < 1e-12


@pytest.mark.parametrize(
    ("net", "settings"),
    [("mlp", {"width": 32, "depth": depth}) for depth in (0, 1, 3)] + [("cnn", {"width": 4, "depth": 1})],
)
def test_claims_follow_depth(net: str, settings: dict[str, int]) -> None:
    subject = Subject(ForwardTargetPropagation, small_task(CLASSES[net], settings))
    for check in ("reverse-mode", "passes", "weight-transport", "waiting"):
        CHECKS[check](subject)


def test_scores_are_the_plain_nets(make_method: Make, batch: Batch) -> None:
    """Neither label nor target enters a prediction."""
    method = make_method("forward-target-propagation")
    method.train_step(batch, START)
    assert torch.equal(method.predict(batch.x), method.net(batch.x).detach())
