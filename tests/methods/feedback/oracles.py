"""What the tests of the feedback family share."""

from typing import Any

import torch
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
    plain = CLASSES[net].build(task.input, task.output, NETS[net], torch.Generator()).double()
    plain.load_state_dict(of.state_dict())
    return plain


def grads(net: nn.Module) -> list[Tensor]:
    return [p.grad for p in net.parameters() if p.grad is not None]


def assert_same(one: list[Tensor], other: list[Tensor]) -> None:
    assert len(one) == len(other) > 0
    for a, b in zip(one, other, strict=True):
        torch.testing.assert_close(a, b, rtol=1e-10, atol=1e-13)
