"""The feedback family's equations without autograd, and what its tests share."""

from collections.abc import Callable
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from bench.api.net import Net
from bench.nets.cnn import CNN
from bench.nets.mlp import MLP
from bench.testing import small_task

CLASSES = {"mlp": MLP, "cnn": CNN}
NETS = {"mlp": {"width": 12, "depth": 3}, "cnn": {"width": 3, "depth": 3}}


def doubled(method: Any) -> Any:
    """The method in float64, so that rounding cannot hide a wrong factor."""
    method.net.double()
    method.feedback.double()
    return method


def twin(net: str, of: nn.Module) -> Net:
    """A net of the same weights that knows nothing of feedback."""
    task = small_task(CLASSES[net], NETS[net])
    plain = CLASSES[net].build(task.image_shape, task.n_classes, NETS[net], torch.Generator()).double()
    plain.load_state_dict(of.state_dict())
    return plain


def grads(net: nn.Module) -> list[Tensor]:
    return [p.grad for p in net.parameters() if p.grad is not None]


def assert_same(one: list[Tensor], other: list[Tensor]) -> None:
    assert len(one) == len(other) > 0
    for a, b in zip(one, other, strict=True):
        torch.testing.assert_close(a, b, rtol=1e-10, atol=1e-13)


def by_hand(net: Net, x: Tensor, y: Tensor, send: Callable[[int, Tensor], Tensor]) -> list[Tensor]:
    """Gradients of all parameters when hidden block l gets send(l, e) at its activation; ReLU nets, no autograd."""
    with torch.no_grad():
        rows, h = [], x
        for block in net.blocks[:-1]:
            layer = next(m for m in block if isinstance(m, (nn.Linear, nn.Conv2d)))
            h = h.flatten(1) if isinstance(layer, nn.Linear) else h
            a = layer(h)
            rows.append((layer, h, a))
            h = F.max_pool2d(a.relu(), 2) if isinstance(block[-1], nn.MaxPool2d) else a.relu()
        h = h.flatten(1)
        logits = net.blocks[-1](h)
        e = (logits.softmax(1) - F.one_hot(y, 10)) / len(y)
        found: list[Tensor] = []
        for k, (layer, below, a) in enumerate(rows):
            delta = send(k, e) * (a > 0)
            if isinstance(layer, nn.Conv2d):
                patches = F.unfold(below, 3, padding=1)
                grad = torch.einsum("nop,nkp->ok", delta.flatten(2), patches).view_as(layer.weight)
                found += [grad, delta.sum((0, 2, 3))]
            else:
                found += [torch.einsum("no,ni->oi", delta, below), delta.sum(0)]
        return [*found, torch.einsum("no,ni->oi", e, h), e.sum(0)]
