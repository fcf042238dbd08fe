"""What is said of a net's structure, and how a stranger's layer joins."""

from collections.abc import Mapping
from typing import Any, ClassVar

import pytest
import torch
from pydantic import BaseModel
from torch import Tensor, nn

from bench import Input, Net, Output
from bench.api.layer import can, members, routed
from bench.api.structure import Need, hidden_shapes, is_flat, sketch, unmet
from bench.nets.cnn import CNN
from bench.nets.localmixer import LocalMixer
from bench.nets.mlp import MLP

IMAGES, CLASSES = Input.image(1, 8, 8), Output.classes(3)


class NoSettings(BaseModel):
    """None."""


class Made(Net):
    """A net of the blocks that it is given."""

    name = "made"
    Settings = NoSettings
    small: ClassVar[Mapping[str, Any]] = {}

    def __init__(self, *blocks: nn.Module) -> None:
        nn.Module.__init__(self)
        self.blocks = nn.ModuleList(blocks)


class Jumping(Made):
    """The first block's output is added to the last one's input."""

    def block(self, k: int, h: Tensor, x: Tensor) -> Tensor:
        return h + super().block(k, h, x)


class Halved(nn.Linear):
    """A linear layer that is not nn.Linear."""

    def forward(self, input: Tensor) -> Tensor:  # noqa: A002  (the name that nn.Linear gave it)
        return super().forward(input) / 2


def link(*behind: nn.Module) -> nn.Sequential:
    return nn.Sequential(nn.Flatten(), nn.Linear(64, 5), *behind)


OUT = nn.Linear(5, 3)


@pytest.mark.parametrize(
    ("need", "net", "fault"),
    [
        ("sequence", Made(link(nn.ReLU()), OUT), None),
        ("sequence", Jumping(link(nn.ReLU()), OUT), "it defines block"),
        ("hidden", Made(link()), "no hidden block"),
        ("chain", Made(link(nn.ReLU()), OUT), None),
        ("chain", Made(link(), OUT), "no activation"),
        ("chain", Made(link(nn.BatchNorm1d(5), nn.ReLU()), OUT), "BatchNorm1d behind its layer"),
        ("chain", Made(link(nn.ReLU(), nn.Dropout(0.5)), OUT), "Dropout behind its activation"),
        ("chain", Made(nn.Sequential(nn.Linear(64, 5, bias=False), nn.ReLU()), OUT), "layer without bias"),
        ("chain", Made(nn.Sequential(nn.Conv2d(1, 2, 3, stride=2), nn.ReLU()), OUT), "strided"),
        ("chain", Made(nn.Sequential(Halved(64, 5), nn.ReLU()), OUT), "begins with Halved"),
        ("chain", Made(link(nn.ReLU()), nn.Sequential(OUT, nn.ReLU())), "block 2 of made is not a linear layer alone"),
        ("readout", Made(link(nn.ReLU()), nn.Sequential(nn.ReLU(), OUT)), None),
        ("readout", Made(link(nn.ReLU()), nn.Sequential(OUT, nn.ReLU())), "is not a linear layer behind"),
        ("feedback", Made(link(nn.ReLU()), OUT), None),
        ("feedback", Made(link(nn.BatchNorm1d(5)), OUT), None),  # it mixes nothing, so no message needs a way back
        ("feedback", Made(nn.Sequential(Halved(64, 5)), OUT), "no feedback is known of Halved"),
        ("outer", Made(link(nn.BatchNorm1d(5)), OUT), None),
        ("outer", Made(link(nn.PReLU()), OUT), "no closed form of the weights' gradient is known of PReLU"),
    ],
)  # fmt: skip
def test_faults_are_named(need: Need, net: Net, fault: str | None) -> None:
    said = unmet((need,), net, IMAGES)
    assert said is None if fault is None else said is not None and fault in said


def test_nets_of_the_suite() -> None:
    for made, flat, shapes in ((MLP, True, [(256,), (256,)]), (CNN, False, [(32, 4, 4), (64, 4, 4), (128, 2, 2)])):
        net = sketch(made, IMAGES, CLASSES, {})
        assert unmet(("chain", "hidden", "readout", "feedback", "outer"), net, IMAGES) is None
        assert next(net.parameters()).device.type == "meta"
        assert (is_flat(net), hidden_shapes(net, IMAGES)) == (flat, shapes)
    mixer = sketch(LocalMixer, IMAGES, CLASSES, {"depth": 2, "patches": 2, "channels": 8, "groups": 2})
    assert "sequences" in (unmet(("unordered",), mixer, IMAGES) or "")


def test_asking_for_shapes_moves_no_statistics_and_no_modes() -> None:
    net = Made(nn.Sequential(nn.Flatten(), nn.BatchNorm1d(64), nn.Linear(64, 5)), OUT)
    norm = net.blocks[0][1]
    assert hidden_shapes(net, IMAGES) == [(5,)]
    assert norm.num_batches_tracked == 0
    assert norm.training


def test_a_stranger_s_layer_joins_by_registering() -> None:
    """Until then it can nothing, though it inherits from a layer that can."""

    class Doubled(nn.Linear):
        def forward(self, input: Tensor) -> Tensor:  # noqa: A002
            return 2 * super().forward(input)

    net = Made(nn.Sequential(nn.Flatten(), Doubled(64, 5), nn.ReLU()), OUT)
    assert "Doubled" in (unmet(("feedback",), net, IMAGES) or "")

    @routed.register
    def _(layer: Doubled, B: Tensor, x: Tensor) -> Tensor:
        return 2 * routed.dispatch(nn.Linear)(layer, B, x)

    assert can(routed, Doubled)
    assert not can(members, Doubled)
    assert unmet(("feedback",), net, IMAGES) is None
    x, B = torch.randn(4, 64).requires_grad_(), torch.randn(5, 64)
    y = routed(net.blocks[0][1], B, x)
    torch.testing.assert_close(y, net.blocks[0][1](x))
    y.sum().backward()
    torch.testing.assert_close(x.grad, 2 * torch.ones(4, 5) @ B)
