"""The contract of layers: right forms pass, and each wrong one is named."""

from collections.abc import Callable
from typing import Any

import pytest
import torch
from torch import Tensor, nn

from bench.api.layer import along_input, along_weights, members, push, routed, weight_gradient
from bench.testing import ContractViolation, check_forms
from bench.testing.layers import check_layers_of

pytestmark = pytest.mark.filterwarnings("ignore:.torch.jit.script. is deprecated:FutureWarning")


@pytest.mark.parametrize(
    ("layer", "shape"),
    [
        (nn.Linear(5, 3), (2, 5)),
        (nn.Linear(5, 3, bias=False), (5,)),
        (nn.Conv2d(4, 6, 3, stride=2, groups=2, bias=False), (4, 7, 6)),
        (nn.BatchNorm2d(4), (4, 3, 2)),
        (nn.GroupNorm(2, 4), (4, 3, 2)),
        (nn.ReLU(), (4,)),
        (nn.MaxPool2d(2), (4, 6, 6)),
        (nn.Sequential(nn.Flatten(), nn.Linear(8, 3), nn.Tanh()), (2, 4)),
    ],
    ids=lambda given: type(given).__name__ if isinstance(given, nn.Module) else "",
)
def test_torch_s_layers_keep_it(layer: nn.Module, shape: tuple[int, ...]) -> None:
    check_forms(layer, torch.randn(3, *shape))


def test_embeddings_keep_it() -> None:
    check_forms(nn.Embedding(6, 3), torch.randint(6, (3, 4)))


WRONG: dict[str, tuple[Any, Callable[..., Any]]] = {
    "weight transport": (routed, lambda layer, B, x: layer(x)),
    "a mean over examples": (
        weight_gradient,
        lambda layer, x, d: {layer.weight: d.T @ x / len(x), layer.bias: d.sum(0)},
    ),
    "a weight forgotten": (weight_gradient, lambda layer, x, d: {layer.weight: d.T @ x}),
    "an affine tangent": (along_input, lambda layer, t: t @ layer.weight.T + layer.bias),
    "a bias across the batch": (along_weights, lambda layer, x, v, b: x @ v.mT + b.mean(1)[:, None, None]),
    "one bias for all": (
        members,
        lambda layer, w, n, x: ((x.view(-1, n, 4) @ w["weight"].mT) + w["bias"][0]).flatten(0, 1),
    ),
    "a tangent left behind": (push, lambda layer, x, t, space: (layer(x), t @ layer.weight.T)),
}


@pytest.mark.parametrize("mistake", WRONG)
def test_a_wrong_form_is_named(mistake: str) -> None:
    class Own(nn.Linear):
        pass

    ability, form = WRONG[mistake]
    ability.register(Own)(form)
    try:
        with pytest.raises(ContractViolation, match=rf"^{ability.__name__} of Own: "):
            check_forms(Own(4, 3), torch.randn(5, 4))
    finally:
        del ability.registry[Own]


def test_layers_of_a_net_are_checked_where_they_stand() -> None:
    class Own(nn.Linear):
        pass

    @weight_gradient.register
    def _(layer: Own, x: Tensor, delta: Tensor) -> dict[Tensor, Tensor]:
        return {p: torch.zeros_like(p) for p in layer.parameters()}

    net = nn.Sequential(nn.BatchNorm1d(4), nn.Sequential(Own(4, 3)))
    with pytest.raises(ContractViolation, match="weight_gradient of Own: the gradient of weight is not autograd's"):
        check_layers_of(net, torch.randn(5, 4))
    del weight_gradient.registry[Own]
