"""Nets that drop units: recomputation sees the same masks, and rules of several passes refuse them."""

from collections.abc import Callable
from dataclasses import replace
from typing import Any

import pytest
import torch
from bench.methods.forward.forward_gradient import ForwardGradient

from bench import Batch, Facts, Progress
from bench.nets.vgg import VGG
from bench.testing.subject import small_task

Make = Callable[..., Any]
DROPPING = {"cfg": "p4", "width": 0.0625, "norm": "batch", "pool": "max", "dropout": 0.4}


def test_checkpoints_draw_the_masks_of_the_first_pass(make_method: Make, batch: Batch) -> None:
    """Catches a second pass with masks of its own, whose gradient is that of no loss, and masks that never change."""
    plain, again = (
        make_method(name, net="vgg", net_settings=DROPPING) for name in ("backprop", "backprop-checkpointed")
    )
    for step in range(3):
        losses = [method.train_step(batch, Progress(step, 3, 0))["loss"] for method in (plain, again)]
        assert torch.equal(*losses)
    for ours, theirs in zip(plain.net.state_dict().values(), again.net.state_dict().values(), strict=True):
        assert torch.equal(ours, theirs)


def test_forward_gradients_refuse_nets_that_drop_units() -> None:
    """Each pass for tangents would be that of another net."""
    found = {}
    for p in (0.0, 0.4):
        task = replace(small_task(VGG), net_settings=DROPPING | {"dropout": p})
        found[p] = ForwardGradient.refuse(task, ForwardGradient.Config(), Facts("cpu", 1, 16))
    assert found[0.0] is None
    assert "dropout in vgg" in str(found[0.4])


@pytest.mark.parametrize("name", ["backprop", "mono-forward"])
def test_predictions_drop_nothing(make_method: Make, batch: Batch, name: str) -> None:
    method = make_method(name, net="vgg", net_settings=DROPPING)
    method.train_step(batch, Progress(0, 3, 0))
    assert torch.equal(method.predict(batch.x), method.predict(batch.x))
