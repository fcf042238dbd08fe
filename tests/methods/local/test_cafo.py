"""CaFo against ridge regression in numpy and the gradient of a linear classifier; what must rest, rests."""

from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from bench import Batch
from bench.measure.retained import Retained
from tests.methods.gradients import watched
from tests.methods.local.oracles import START, assert_same

NETS = {"mlp": {"width": 12, "depth": 3}, "cnn": {"width": 3, "depth": 3}}
Make = Callable[..., Any]


def features(method: Any, x: Tensor) -> list[Tensor]:
    """Outputs of the random blocks, flat."""
    found, h = [], x
    with torch.no_grad():
        for block in method.net.blocks[:-1]:
            h = block(h)
            found.append(h.flatten(1))
    return found


def linear(method: Any) -> list[nn.Linear]:
    return [next(m for m in c.modules() if isinstance(m, nn.Linear)) for c in method.classifiers]


def batches(n: int) -> list[Batch]:
    generator = torch.Generator().manual_seed(1)
    return [
        Batch(torch.randn(16, 1, 8, 8, generator=generator).double(), torch.randint(10, (16,), generator=generator))
        for _ in range(n)
    ]


@pytest.mark.parametrize("passes", [1, 3])
@pytest.mark.parametrize("net", NETS)
def test_closed_form_is_ridge_regression_over_all_images(make_method: Make, net: str, passes: int) -> None:
    """|H U - Y|^2 / n + ridge |U|^2 as one least-squares problem in numpy; further passes change nothing."""
    ridge = 1e-2
    method = make_method("cafo", net=net, net_settings=NETS[net], fit="lstsq", ridge=ridge)
    method.net.double()
    method.heads.double()
    method.hh, method.hy = ([t.double() for t in of] for of in (method.hh, method.hy))
    data = batches(5)
    for _ in range(passes):
        for batch in data:
            method.train_step(batch, START)
    method.prepare_for_eval()
    x, y = torch.cat([b.x for b in data]), torch.cat([b.y for b in data])
    n = len(y)
    for h, layer in zip(features(method, x), linear(method), strict=True):
        H = np.hstack([h.numpy(), np.ones((n, 1))])
        rows = np.vstack([H / np.sqrt(n), np.sqrt(ridge) * np.eye(H.shape[1])])
        wanted = np.vstack([np.eye(10)[y.numpy()] / np.sqrt(n), np.zeros((H.shape[1], 10))])
        U = np.linalg.lstsq(rows, wanted, rcond=None)[0]
        np.testing.assert_allclose(layer.weight.numpy(), U[:-1].T, rtol=1e-7, atol=1e-9)
        np.testing.assert_allclose(layer.bias.numpy(), U[-1], rtol=1e-7, atol=1e-9)


@pytest.mark.parametrize("net", NETS)
def test_classifiers_have_the_gradient_of_their_own_cross_entropy(make_method: Make, batch: Batch, net: str) -> None:
    method = make_method("cafo", net=net, net_settings=NETS[net])
    method.net.double()
    method.heads.double()
    x, y = batch.x.double(), batch.y
    expected = []
    for h, layer in zip(features(method, x), linear(method), strict=True):
        e = ((h @ layer.weight.T + layer.bias).softmax(1) - F.one_hot(y, 10)).detach() / len(y)
        expected += [e.T @ h, e.sum(0)]
    seen = watched(method.optimizers)
    method.train_step(Batch(x, y), START)
    assert_same([seen[id(p)] for layer in linear(method) for p in layer.parameters()], expected)


@pytest.mark.parametrize("fit", ["ce", "lstsq"])
@pytest.mark.parametrize("net", NETS)
def test_blocks_stay_as_they_were_drawn(make_method: Make, batch: Batch, net: str, fit: str) -> None:
    method, plain = make_method("cafo", net=net, fit=fit, lr=0.1), make_method("backprop", net=net)
    for _ in range(3):
        method.train_step(batch, START)
    method.prepare_for_eval()
    for block, same in zip(method.net.blocks[:-1], plain.net.blocks[:-1], strict=True):
        assert all(torch.equal(p, q) for p, q in zip(block.parameters(), same.parameters(), strict=True))
    changed = zip(method.net.blocks[-1].parameters(), plain.net.blocks[-1].parameters(), strict=True)
    assert all(not torch.equal(p, q) for p, q in changed)


@pytest.mark.parametrize("fit", ["ce", "lstsq"])
def test_prediction_is_the_sum_of_softmaxes(make_method: Make, batch: Batch, fit: str) -> None:
    """And that of an image does not depend on the images beside it."""
    method = make_method("cafo", net="cnn", fit=fit)
    for _ in range(3):
        method.train_step(batch, START)
    method.prepare_for_eval()
    votes = torch.zeros(16, 10)
    with torch.no_grad():
        for h, layer in zip(features(method, batch.x), linear(method), strict=True):
            scores = (layer.weight @ h.T).T + layer.bias
            votes += scores.exp() / scores.exp().sum(1, keepdim=True)
    torch.testing.assert_close(method.predict(batch.x), votes)
    torch.testing.assert_close(method.predict(batch.x[:1]), votes[:1])


def test_before_the_first_image_the_closed_form_is_zero(make_method: Make, batch: Batch) -> None:
    method = make_method("cafo", net="mlp", fit="lstsq")
    method.prepare_for_eval()
    torch.testing.assert_close(method.predict(batch.x), torch.full((16, 10), 3 / 10 * len(method.classifiers) / 3))


def test_retained_bytes_are_those_of_the_largest_classifier(make_method: Make, batch: Batch) -> None:
    """Its input and its loss; random blocks keep nothing."""
    method = make_method("cafo", net="cnn", net_settings={"width": 8, "depth": 3})
    method.train_step(batch, START)
    with Retained().watch(method, ()) as reading:
        method.train_step(batch, START)
    widest = 4 * 16 * max(h.shape[1] for h in features(method, batch.x))
    assert reading()["retained_bytes"] == widest + 4 * 16 * 10 + 8 * 16 + 4
