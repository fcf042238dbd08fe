"""Which optimiser each rule has, by the step that it makes, and the defaults of Table 3.

Where no gradient reaches a weight w, AdamW shrinks it by lr * decay * w; Adam, whose penalty is part of the gradient,
moves every weight by about lr in its first step, whatever the decay.
"""

from collections.abc import Callable, Mapping
from typing import Any

import pytest
import torch
from torch import Tensor, nn

from bench import Batch, Method
from bench.catalog.catalog import Catalog

LR, DECAY = 1e-2, 0.1


def optimizers(method: Any) -> list[torch.optim.Optimizer]:
    several = [*getattr(method, "optimizers", []), getattr(method, "shared_optimizer", None)]
    return [of for of in (getattr(method, "optimizer", None), *several) if of is not None]


def step_without_gradient(method: Method) -> Mapping[nn.Parameter, Tensor]:
    """By weight: how far the first step moves it when every gradient is zero, in units of its value before."""
    moved = {}
    for optimizer in optimizers(method):
        for p in (p for group in optimizer.param_groups for p in group["params"]):
            p.data.fill_(2.0)
            p.grad = torch.zeros_like(p)
            moved[p] = p.detach().clone()
        optimizer.step()
    return {p: (before - p.detach()) / before for p, before in moved.items()}


@pytest.mark.parametrize("name", ["noprop-dt", "diffusion-blocks", "adjoint", "backprop"])
def test_decay_is_apart_from_the_gradient(name: str, make_method: Callable[..., Method]) -> None:
    net = None if name != "backprop" else "denoiser"
    moved = step_without_gradient(make_method(name, net=net, lr=LR, weight_decay=DECAY))
    assert moved
    for shrunk in moved.values():
        torch.testing.assert_close(shrunk, torch.full_like(shrunk, LR * DECAY))


@pytest.mark.parametrize("name", ["noprop-ct", "noprop-fm"])
def test_decay_is_part_of_the_gradient(name: str, make_method: Callable[..., Method]) -> None:
    moved = step_without_gradient(make_method(name, lr=LR, weight_decay=DECAY))
    assert moved
    for shrunk in moved.values():
        torch.testing.assert_close(2 * shrunk, torch.full_like(shrunk, LR), rtol=1e-4, atol=0)


@pytest.mark.parametrize(
    ("name", "defaults"),
    [
        ("noprop-dt", {"lr": 1e-3, "weight_decay": 1e-3, "eta": 0.1}),
        ("noprop-ct", {"lr": 1e-3, "weight_decay": 1e-3, "eta": 1.0}),
        ("noprop-fm", {"lr": 1e-3, "weight_decay": 1e-3}),
        ("adjoint", {"lr": 1e-3, "weight_decay": 1e-3}),
        ("backprop", {"lr": 1e-3, "weight_decay": 1e-3}),
    ],
)
def test_defaults_are_table_3_s(name: str, defaults: dict[str, float], catalog: Catalog) -> None:
    chosen = catalog.methods[name].load().Config().model_dump()
    assert {key: chosen[key] for key in defaults} == defaults


def test_every_weight_that_learns_is_in_one_optimiser(make_method: Callable[..., Method], batch: Batch) -> None:
    for name in ("noprop-dt", "diffusion-blocks", "noprop-ct", "noprop-fm", "adjoint"):
        held = [p for of in optimizers(make_method(name)) for group in of.param_groups for p in group["params"]]
        assert len(held) == len(set(held)), name
