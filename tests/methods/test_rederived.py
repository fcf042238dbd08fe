"""The numpy building blocks against torch, so that re-derivations stand on something that is known to be right."""

from typing import Any

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from torch import nn

from tests.methods import rederived as np_
from tests.methods.rederived import Array, Block

RNG = np.random.default_rng(0)


def normal(*shape: int) -> Array:
    return RNG.normal(size=shape)


def as_torch(*arrays: Array) -> list[torch.Tensor]:
    return [torch.tensor(a, requires_grad=True) for a in arrays]


def close(ours: Any, theirs: torch.Tensor | None) -> None:
    assert theirs is not None
    np.testing.assert_allclose(ours, theirs.detach().numpy(), rtol=1e-10, atol=1e-12)


@pytest.mark.parametrize("k", [1, 3, 5])
def test_convolution(k: int) -> None:
    x, W, b, delta = normal(2, 3, 5, 4), normal(4, 3, k, k), normal(4), normal(2, 4, 5, 4)
    tx, tW, tb = as_torch(x, W, b)
    y = F.conv2d(tx, tW, tb, padding=k // 2)
    y.backward(torch.tensor(delta))
    close(np_.conv(x, W, b), y)
    for ours, theirs in zip(np_.conv_gradient(x, W, delta), (tx, tW, tb), strict=True):
        close(ours, theirs.grad)


@pytest.mark.parametrize("act", ["relu", "tanh", "identity"])
@pytest.mark.parametrize(("shape", "pool"), [((3, 5, 7), True), ((3, 4, 4), False), ((6,), False)])
def test_block(shape: tuple[int, ...], pool: bool, act: str) -> None:
    """Forward and backward of a block, its pooling over an odd map included."""
    x = normal(4, *shape)
    block = Block(normal(2, 3, 3, 3) if len(shape) > 1 else normal(5, 6), normal(2 if len(shape) > 1 else 5), act, pool)
    tx, W, b = as_torch(x, block.W, block.b)
    a = F.conv2d(tx, W, b, padding=1) if len(shape) > 1 else F.linear(tx, W, b)
    h = {"relu": torch.relu, "tanh": torch.tanh, "identity": nn.Identity()}[act](a)
    h = F.max_pool2d(h, 2) if pool else h
    delta = normal(*h.shape)
    h.backward(torch.tensor(delta))
    close(block.forward(x), h)
    close(block.backward(delta), tx.grad)
    for ours, theirs in zip(block.gradients, (W.grad, b.grad), strict=True):
        close(ours, theirs)


def test_cross_entropy() -> None:
    scores, y = normal(6, 4), np.array([0, 1, 2, 3, 3, 0])
    (t,) = as_torch(scores)
    loss = F.cross_entropy(t, torch.tensor(y))
    loss.backward()
    ours, delta = np_.cross_entropy(scores, y)
    assert ours == pytest.approx(loss.item(), rel=1e-12)
    close(delta, t.grad)


OPTIMISERS: list[tuple[type, type, dict[str, Any]]] = [
    (np_.SGD, torch.optim.SGD, {}),
    (np_.SGD, torch.optim.SGD, {"momentum": 0.9, "weight_decay": 0.1}),
    (np_.SGD, torch.optim.SGD, {"momentum": 0.8, "weight_decay": 0.1, "nesterov": True}),
    (np_.Adam, torch.optim.Adam, {"weight_decay": 0.1}),
    (np_.Adam, torch.optim.Adam, {"betas": (0.5, 0.9)}),
    (np_.AdamW, torch.optim.AdamW, {"weight_decay": 0.1}),
]


@pytest.mark.parametrize(("ours", "theirs", "settings"), OPTIMISERS)
def test_optimisers(ours: Any, theirs: Any, settings: dict[str, Any]) -> None:
    """Five steps along the same gradients, the last two with a smaller step size."""
    w = [normal(3, 2), normal(4)]
    t = as_torch(*w)
    mine, other = ours(w, 0.1, **settings), theirs(t, 0.1, **settings)
    for step in range(5):
        lr = 0.1 if step < 3 else 0.025
        gradients = [normal(*p.shape) for p in w]
        other.param_groups[0]["lr"] = lr
        for p, g in zip(t, gradients, strict=True):
            p.grad = torch.tensor(g)
        other.step()
        mine.step(gradients, lr)
    for p, q in zip(w, t, strict=True):
        close(p, q)


def test_falls_are_those_of_multistep_lr() -> None:
    """Also at the edges: step 5 of 10 is the first with the smaller step size."""
    p = nn.Parameter(torch.zeros(1))
    optimizer = torch.optim.SGD([p], lr=2.0)
    schedule = torch.optim.lr_scheduler.MultiStepLR(optimizer, [5, 8], gamma=0.25)
    for step in range(10):
        assert np_.falls(2.0, step / 10, (0.5, 0.8), 0.25) == pytest.approx(optimizer.param_groups[0]["lr"], rel=1e-12)
        optimizer.step()
        schedule.step()
