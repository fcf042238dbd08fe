"""States, targets and activities that rest stay as they are to the last bit: AdamW makes whole steps of rounding."""

from collections.abc import Callable
from dataclasses import replace
from typing import Any

import pytest
import torch

from bench import Batch, Input, Progress
from bench.nets.cnn import CNN
from bench.nets.mlp import MLP
from bench.testing.subject import small_task

DEPTH = 8
Make = Callable[..., Any]
DTYPES = (torch.float32, torch.float64)
NETS: dict[str, tuple[Any, dict[str, Any]]] = {
    "mlp": (MLP, {"width": 64, "depth": DEPTH}),
    "cnn": (CNN, {"width": 4, "depth": DEPTH}),
}
RESTING = ("predictive-coding", "equilibrium-propagation", "target-propagation", "forward-target-propagation", "pepita")


def made(make_method: Make, name: str, net: str, dtype: torch.dtype, **settings: Any) -> Any:
    task = replace(small_task(*NETS[net]), input=Input.image(3, 8, 8))
    method = make_method(name, task=task, **settings)
    method.net.to(dtype)
    if hasattr(method, "feedback"):
        method.feedback.to(dtype)
    return method


def moved(method: Any, batch: Batch, steps: int) -> list[bool]:
    """For each block, whether its weights have changed at all."""
    blocks = method.net.blocks
    before = [[p.detach().clone() for p in block.parameters()] for block in blocks]
    for step in range(steps):
        method.train_step(batch, Progress(step, steps, 0))
    return [
        not all(torch.equal(p, q) for p, q in zip(block.parameters(), kept, strict=True))
        for block, kept in zip(blocks, before, strict=True)
    ]


def images(dtype: torch.dtype) -> Batch:
    generator = torch.Generator().manual_seed(0)
    return Batch(torch.randn(16, 3, 8, 8, generator=generator).to(dtype), torch.arange(16) % 10)


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("net", NETS)
@pytest.mark.parametrize("momentum", [0.0, 0.35])
@pytest.mark.parametrize("learning", ["equilibrium", "incremental"])
def test_layers_that_no_error_has_reached_rest(
    make_method: Make, dtype: torch.dtype, net: str, momentum: float, learning: str
) -> None:
    """Catches a step of states that does not return x where x = mu: (1 - eta) x + eta mu.

    Errors come down one layer a step, and three steps leave the first layers of a deep net without any.
    """
    settings = {"momentum": momentum, "learning": learning, "steps": 3, "weight_decay": 0.0}
    method = made(make_method, "predictive-coding", net, dtype, **settings)
    # incremental weights step before the states' last step; in later batches AdamW's memory moves layers further down
    reached, batches = (4, 3) if learning == "equilibrium" else (3, 1)
    assert moved(method, images(dtype), batches) == [False] * (DEPTH + 1 - reached) + [True] * reached


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("order", ["synchronous", "asynchronous"])
def test_layers_that_no_nudge_has_reached_rest(make_method: Make, dtype: torch.dtype, order: str) -> None:
    """Catches a second nudged phase that does not begin with the states of the first: centred differences are not 0."""
    settings = {"relaxation": order, "nudged_steps": 1, "weight_decay": 0.0}
    method = made(make_method, "equilibrium-propagation", "mlp", dtype, **settings)
    reached = 2 if order == "asynchronous" else 1
    assert moved(method, images(dtype), 3) == [False] * (DEPTH + 1 - reached) + [True] * reached


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize(
    ("name", "net"), [(name, net) for name in RESTING for net in NETS if (name, net) != (RESTING[1], "cnn")]
)
def test_a_net_that_errs_nowhere_rests(make_method: Make, dtype: torch.dtype, name: str, net: str) -> None:
    """Catches targets and second passes that differ from activities by rounding where the error is 0.

    The read-out is so large that its softmax is one-hot, and labels are what it says.
    """
    more = {"predictive-coding": {"energy": "cross-entropy"}, "equilibrium-propagation": {"loss": "ce"}}.get(name, {})
    if name != "pepita":
        more = more | {"weight_decay": 0.0}
    method = made(make_method, name, net, dtype, **more)
    x = images(dtype).x
    with torch.no_grad():
        for p in method.net.blocks[-1].parameters():
            p.mul_(1e9)
    scores = method.predict(x)
    top = scores.topk(2).values
    assert float((top[:, 0] - top[:, 1]).min()) > 800
    assert not any(moved(method, Batch(x, scores.argmax(1)), 3))
