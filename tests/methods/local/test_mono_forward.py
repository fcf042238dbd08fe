"""Mono-Forward against its equations, written out without autograd."""

from collections.abc import Callable
from typing import Any

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from bench import Batch
from tests.methods.gradients import watched
from tests.methods.local.oracles import START, assert_same

NETS = {"mlp": {"width": 12, "depth": 3}, "cnn": {"width": 3, "depth": 3}}
Make = Callable[..., Any]


@pytest.mark.parametrize("net", NETS)
def test_each_layer_follows_the_equations(make_method: Make, batch: Batch, net: str) -> None:
    """e_l = softmax(h_l M_l^T) - onehot; grad M_l = e_l^T h_l / N; grad W_l = (e_l M_l * relu'(a_l))^T h_{l-1} / N.

    A projection that took part in its neighbour's error, or a last layer with one too many, would show.
    """
    method = make_method("mono-forward", net=net, net_settings=NETS[net])
    method.net.double()
    method.targets.double()
    x, y = batch.x.double(), batch.y
    N, expected = len(y), list[Tensor]()
    *hidden, classifier = method.net.blocks
    readout = next(m for m in classifier.modules() if isinstance(m, nn.Linear))
    projections = [t.head[-1].weight for t in method.targets] + [readout.weight]
    assert len(projections) == len(hidden)
    with torch.no_grad():
        h = x
        for k, (block, M) in enumerate(zip(hidden, projections, strict=True)):
            layer = next(m for m in block if isinstance(m, (nn.Linear, nn.Conv2d)))
            below = h.flatten(1) if isinstance(layer, nn.Linear) else h
            a = layer(below)
            pooled = isinstance(block[-1], nn.MaxPool2d)
            h, places = F.max_pool2d(a.relu(), 2, return_indices=True) if pooled else (a.relu(), None)
            G = h.flatten(1) @ M.T + (readout.bias if k == len(hidden) - 1 else 0)
            e = (G.softmax(1) - F.one_hot(y, 10)) / N
            back = (e @ M).view_as(h)
            if pooled:
                back = F.max_unpool2d(back, places, 2, output_size=a.shape)
            delta = back * (a > 0)
            if isinstance(layer, nn.Linear):
                expected += [delta.T @ below, delta.sum(0)]
            else:
                patches = F.unfold(below, 3, padding=1)
                W = torch.einsum("nop,nkp->ok", delta.flatten(2), patches).view_as(layer.weight)
                expected += [W, delta.sum((0, 2, 3))]
            expected.append(e.T @ h.flatten(1))
            if k == len(hidden) - 1:
                expected.append(e.sum(0))
                loss = F.cross_entropy(G, y)
    seen = watched(method.optimizers)
    found = method.train_step(Batch(x, y), START)
    assert_same([seen[id(p)] for m in method.isolated for p in m.weights.parameters()], expected)
    torch.testing.assert_close(found["loss"], loss)


@pytest.mark.parametrize("net", NETS)
def test_prediction_by_the_last_layer_or_by_the_sum(make_method: Make, batch: Batch, net: str) -> None:
    last, total = (
        make_method("mono-forward", net=net, net_settings=NETS[net], predict_by=by) for by in ("last", "sum")
    )
    h, scores = batch.x, torch.zeros(len(batch.y), 10)
    with torch.no_grad():
        for k, block in enumerate(total.net.blocks[:-1]):
            h = block(h)
            if k < len(total.targets):
                scores += h.flatten(1) @ total.targets[k].head[-1].weight.T
    torch.testing.assert_close(last.predict(batch.x), last.net(batch.x).detach())
    torch.testing.assert_close(total.predict(batch.x), scores + total.net(batch.x).detach())
    assert set(last.modules()["training_only"].parameters()) == set(last.targets.parameters())
    assert set(total.modules()["inference"].parameters()) == {*total.net.parameters(), *total.targets.parameters()}


def test_projections_have_no_bias_and_stand_on_hidden_layers_alone(make_method: Make) -> None:
    method = make_method("mono-forward", net="mlp", net_settings=NETS["mlp"])
    assert [tuple(p.shape) for p in method.targets.parameters()] == [(10, 12), (10, 12)]
