"""A population on any net, all at once, against its members one after another."""

import pytest
import torch
import torch.nn.functional as F
from bench.methods.perturbation.population import population, population_losses
from pydantic import BaseModel
from torch import Tensor, nn
from torch.func import functional_call

from bench import Batch, Net, Output
from bench.objectives.cross_entropy import CrossEntropy

K, B = 5, 3


class NoSettings(BaseModel):
    """None."""


class Made(Net):
    name = "made"
    Settings = NoSettings

    def __init__(self, *blocks: nn.Module) -> None:
        nn.Module.__init__(self)
        self.blocks = nn.ModuleList(blocks)


class Skip(nn.Module):
    """x + f(x), of the net's own input."""

    def __init__(self) -> None:
        super().__init__()
        self.inner = nn.Sequential(nn.Conv2d(4, 4, 3, padding=1, groups=2, bias=False), nn.BatchNorm2d(4), nn.ReLU())

    def forward(self, x: Tensor) -> Tensor:
        return x + self.inner(x)


class Tokens(nn.Module):
    """Attention with a place of its own for each token, whose parameters no layer owns."""

    def __init__(self) -> None:
        super().__init__()
        self.table, self.places = nn.Embedding(6, 8), nn.Parameter(torch.randn(4, 8))
        self.mix = nn.Linear(8, 24, bias=False)

    def forward(self, x: Tensor) -> Tensor:
        q, k, v = self.mix(self.table(x) + self.places).unsqueeze(1).chunk(3, -1)
        return F.scaled_dot_product_attention(q, k, v).mean((1, 2))


class Steps(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.cell = nn.GRUCell(4, 8)

    def forward(self, x: Tensor) -> Tensor:
        h = x.new_zeros(len(x), 8)
        for now in x.unbind(1):
            h = self.cell(now, h)
        return h


class Around(nn.Module):
    """It multiplies by its layer's weights without calling the layer."""

    def __init__(self) -> None:
        super().__init__()
        self.layer = nn.Linear(4, 4)

    def forward(self, x: Tensor) -> Tensor:
        return x @ self.layer.weight


def images() -> Tensor:
    return torch.randn(B, 4, 5, 5)


NETS = {
    "norms and skips": (lambda: [Skip(), nn.Sequential(nn.GroupNorm(2, 4), nn.Flatten(), nn.Linear(100, 3))], images),
    "sequences": (
        lambda: [nn.Sequential(nn.Linear(4, 5), nn.LayerNorm(5)), nn.Sequential(nn.Flatten(), nn.Linear(30, 3))],
        lambda: torch.randn(B, 6, 4),
    ),
    "tokens": (lambda: [Tokens(), nn.Linear(8, 3)], lambda: torch.randint(6, (B, 4))),
    "state over time": (lambda: [Steps(), nn.Linear(8, 3)], lambda: torch.randn(B, 6, 4)),
}  # fmt: skip


@pytest.mark.filterwarnings("ignore:There is a performance drop")  # torch evaluates its cells member by member
@pytest.mark.parametrize("name", NETS)
def test_losses_are_those_of_members_one_by_one(name: str) -> None:
    """Mistakes: a skip connection whose rows meet other members' rows; one member's norm, or place, for all."""
    torch.manual_seed(0)
    blocks, inputs = NETS[name]
    net = Made(*blocks()).double().eval()
    x = inputs()
    batch = Batch(x.double() if x.is_floating_point() else x, torch.tensor([0, 2, 1]))
    weights = {n: torch.randn(K, *p.shape).double() for n, p in net.named_parameters()}
    with torch.no_grad():
        found = population_losses(net, weights, batch, CrossEntropy(Output.classes(3)))
        for i in range(K):
            out = functional_call(net, {n: w[i] for n, w in weights.items()}, batch.x)
            torch.testing.assert_close(found[i], F.cross_entropy(out, batch.y))


def test_parameters_that_are_used_without_their_layer_are_no_silent_mistake() -> None:
    net = Made(Around(), nn.Linear(4, 3)).eval()
    weights = {n: torch.randn(K, *p.shape) for n, p in net.named_parameters()}
    with pytest.raises(TypeError, match=r"never calls its layer blocks\.0\.layer"), population(net, weights, B):
        net(torch.randn(K * B, 4))
    assert "forward" not in vars(net.blocks[1])
