"""Signal propagation against its equations over a whole batch of contexts, written out a second time."""

from collections.abc import Callable
from typing import Any

import pytest
import torch
import torch.nn.functional as F
from bench.methods.local.sigprop import SigProp, nearest_context, similarity_loss
from torch import Tensor

from bench import Batch, Progress
from bench.measure.retained import retained_bytes
from tests.methods.gradients import watched

START = Progress(0, 10, 0)
Make = Callable[..., Any]
NETS = {"mlp": {"width": 12, "depth": 3}, "cnn": {"width": 3, "depth": 3}}


@pytest.fixture
def batch64(batch: Batch) -> Batch:
    """With classes that no image has: their contexts must take no part."""
    return Batch(batch.x.double(), batch.y % 6)


def made(make_method: Make, net: str, **settings: Any) -> SigProp:
    method: SigProp = make_method("sigprop", net=net, net_settings=NETS[net], **settings)
    method.net.double()
    method.context.double()
    return method


def rows(t: Tensor) -> Tensor:
    """A row of channels for each position. Shape: (B, channels, ...) to (positions, B, channels)."""
    return t[..., None].flatten(2).permute(2, 0, 1)


def as_published(h: Tensor, t: Tensor, below: Tensor) -> Tensor:
    """One context an image. The Gram matrix is that of the contexts below, its row maximum the target.

    Shape: h and t (B, ...), below (B, ...).
    """
    s = torch.stack([a @ b.T for a, b in zip(rows(h), rows(t), strict=True)]).mean(0)
    gram = torch.stack([b @ b.T for b in rows(below)]).mean(0)
    return F.cross_entropy(s, gram.argmax(1))


@pytest.mark.parametrize("target", ["gram", "label"])
@pytest.mark.parametrize("net", NETS)
def test_gradients_are_those_of_the_published_loss(make_method: Make, batch64: Batch, net: str, target: str) -> None:
    """Fails with a missing detach, a context of the wrong class, absent classes in the softmax."""
    method, again = (made(make_method, net, target=target) for _ in range(2))
    x, y = batch64
    onehot = F.one_hot(y, 10).double()
    expected: list[Tensor] = []
    h, t, below = x, torch.empty(0), onehot
    for k, block in enumerate(again.net.blocks[:-1]):
        weights = list(block.parameters())
        if k == 0:
            h, t = block(x), again.context()[y]
            weights += again.context.parameters()
        else:
            h, t = block(h.detach()), block(t.detach())
        loss = as_published(h, t, below)
        expected += torch.autograd.grad(loss, weights)
        below = onehot if target == "label" else t.detach()
    last = F.cross_entropy(again.net.blocks[-1](h.detach()), y)
    expected += torch.autograd.grad(last, list(again.net.blocks[-1].parameters()))

    seen = watched(method.optimizers)
    loss = method.train_step(batch64, START)["loss"]
    torch.testing.assert_close(loss, last.detach())
    found = list(seen.values())
    assert len(found) == len(expected)
    for one, other in zip(found, expected, strict=True):
        torch.testing.assert_close(one, other, rtol=1e-9, atol=1e-12)


def test_contexts_of_classes_stand_for_those_of_images() -> None:
    """log sum over a batch of equal contexts is that over classes, weighted by how many images each has."""
    torch.manual_seed(0)
    h, t, y = torch.randn(7, 3, 2, 2).double(), torch.randn(5, 3, 2, 2).double(), torch.tensor([0, 0, 1, 3, 3, 3, 1])
    counts = F.one_hot(y, 5).sum(0)
    nearest = nearest_context(t, counts)[y]
    torch.testing.assert_close(similarity_loss(h, t, nearest, counts), as_published(h, t[y], t[y]))
    assert set(nearest.tolist()) <= {0, 1, 3}


def test_nearest_context_may_be_another_class() -> None:
    """The longest context attracts those that lie along it; without it in the batch, each is its own."""
    t = torch.tensor([[1.0, 0.0], [3.0, 0.1], [0.0, 1.0]])
    assert nearest_context(t, torch.tensor([4, 1, 2])).tolist() == [1, 1, 2]
    assert nearest_context(t, torch.tensor([4, 0, 2]))[[0, 2]].tolist() == [0, 2]


def test_a_layer_learns_alone(make_method: Make, batch64: Batch) -> None:
    """Each step clears the gradients of its own layer: what a loss sent to a layer below would be there still."""
    method = made(make_method, "mlp")
    method.train_step(batch64, START)
    assert [p.grad for p in (*method.net.parameters(), *method.context.parameters())] == [None] * 11


def test_retained_bytes_do_not_grow_with_depth(make_method: Make, batch: Batch) -> None:
    sizes = set()
    for depth in (2, 3, 6):
        method = make_method("sigprop", net="mlp", net_settings={"width": 96, "depth": depth})
        parameters = [*method.net.parameters(), *method.context.parameters()]
        sizes.add(retained_bytes(lambda method=method: method.train_step(batch, START), parameters))  # type: ignore[misc]
    assert len(sizes) == 1


def test_prediction_sees_no_context(make_method: Make, batch: Batch) -> None:
    method = make_method("sigprop")
    method.train_step(batch, START)
    scores = method.predict(batch.x)
    for p in method.context.parameters():
        p.data.fill_(torch.nan)
    assert torch.equal(method.predict(batch.x), scores)
    assert torch.equal(scores, method.net(batch.x).detach())
