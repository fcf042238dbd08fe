"""Couplings against their equations, and their inverse."""

import pytest
import torch

from bench import Input, Output
from bench.api.errors import ConfigError
from bench.experiment.validation import validate_settings
from bench.nets.reversible import Coupling, Reversible

SHAPES = {"linear": (1, 8, 8), "conv": (3, 6, 5)}
any_layers = pytest.mark.parametrize("layers", SHAPES)


def built(layers: str, **settings: object) -> Reversible:
    return Reversible.build(
        Input.image(*SHAPES[layers]),
        Output.classes(10),
        {"layers": layers, **settings},
        torch.Generator().manual_seed(0),
    )


@any_layers
def test_a_coupling_is_its_two_equations(layers: str) -> None:
    net = built(layers, width=6, depth=1)
    coupling: Coupling = net.blocks[1]
    h = net.blocks[0](torch.randn(4, *SHAPES[layers], generator=torch.Generator().manual_seed(1)))
    y = coupling(h)
    y1 = h[:, :3] + coupling.f[1](h[:, :3].clone().copy_(h[:, 3:]).relu())
    y2 = h[:, 3:] + coupling.g[1](y1.relu())
    torch.testing.assert_close(y, torch.cat([y1, y2], dim=1))
    assert y.shape == h.shape


@any_layers
@pytest.mark.parametrize(("dtype", "within"), [(torch.float64, 1e-12), (torch.float32, 1e-5)])
def test_a_chain_of_couplings_is_taken_back_within_rounding(layers: str, dtype: torch.dtype, within: float) -> None:
    """Twenty of them; errors are of the size of rounding, and zero where the residual functions are."""
    net = built(layers, width=16, depth=20).to(dtype)
    x = torch.randn(4, *SHAPES[layers], generator=torch.Generator().manual_seed(1)).to(dtype)
    with torch.no_grad():
        start = h = net.blocks[0](x)
        for coupling in net.blocks[1:-1]:
            h = coupling(h)
        assert (h - start).norm() > 0.1 * start.norm(), "the chain does nothing"
        for coupling in reversed(net.blocks[1:-1]):
            h = coupling.inverse(h)
    assert float((h - start).norm() / start.norm()) < within


def test_an_odd_width_is_refused() -> None:
    with pytest.raises(ConfigError, match="multiple of 2"):
        validate_settings(Reversible.Settings, {"width": 7}, "reversible")


@pytest.mark.parametrize("shape", [(1, 1, 1), (2, 1, 5), (3, 32, 32)])
@any_layers
def test_any_image_has_scores(layers: str, shape: tuple[int, int, int]) -> None:
    net = Reversible.build(Input.image(*shape), Output.classes(7), {"layers": layers, "width": 4}, torch.Generator())
    assert net(torch.zeros(2, *shape)).shape == (2, 7)
