"""Nets that drop units: recomputation sees the same masks, and rules that need one function refuse them."""

from collections.abc import Callable
from typing import Any

import pytest
import torch

from bench import Batch, Input, Output, Progress
from bench.api.structure import sketch, unmet
from bench.nets.vgg import VGG

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


def test_a_net_that_drops_units_is_not_noiseless() -> None:
    given, output = Input.image(1, 8, 8), Output.classes(10)
    for p, reason in ((0.0, None), (0.4, "vgg drops other units in each forward pass")):
        assert unmet(("noiseless",), sketch(VGG, given, output, DROPPING | {"dropout": p}), given) == reason


@pytest.mark.parametrize("name", ["backprop", "mono-forward"])
def test_predictions_drop_nothing(make_method: Make, batch: Batch, name: str) -> None:
    method = make_method(name, net="vgg", net_settings=DROPPING)
    method.train_step(batch, Progress(0, 3, 0))
    assert torch.equal(method.predict(batch.x), method.predict(batch.x))
