"""ReLU with dropout against its definition, and where Figure 6 has it."""

import pytest
import torch
import torch.nn.functional as F
from bench.methods.noprop.towers import ImageTower, TowerSettings
from torch import Tensor

from bench.api.errors import ConfigError
from bench.nets.layers import ReLUDropout

N = 200_000


def layer(p: float, seed: int = 0) -> ReLUDropout:
    made = ReLUDropout(p)
    made.generator = torch.Generator().manual_seed(seed)
    return made


@pytest.mark.parametrize("p", [0.1, 0.2, 0.5, 0.9, 0.999995])
def test_a_unit_is_kept_with_probability_one_minus_p_and_scaled(p: float) -> None:
    """Within five standard errors, and within the 2^-16 to which p is met at its end."""
    x = torch.randn(N, generator=torch.Generator().manual_seed(1)) + 1
    y = layer(p)(x.clone())
    kept = y != 0
    torch.testing.assert_close(y[kept], x[kept] / (1 - p))
    positive = x > 0
    assert not kept[~positive].any()
    expected, n = 1 - p, int(positive.sum())
    error = 5 * (expected * p / n) ** 0.5 + 2**-16
    assert float(kept[positive].double().mean()) == pytest.approx(expected, abs=error)


def test_neighbours_and_calls_are_kept_independently() -> None:
    """Of 16 bits each out of one word of 64: the correlation of neighbours is 0 within five standard errors."""
    drop = layer(0.5)
    first, second = (drop(torch.ones(N)) - 1 for _ in range(2))
    for one, other in [(first, second), *((first[k:], first[:-k]) for k in (1, 2, 3, 4))]:
        assert abs(float((one * other).mean())) < 5 / N**0.5


def test_its_own_generator_decides() -> None:
    one, same, other = layer(0.5), layer(0.5), layer(0.5, seed=1)
    before = torch.get_rng_state()
    drawn = [drop(torch.ones(1000)) for drop in (one, same, other)]
    assert torch.equal(drawn[0], drawn[1])
    assert not torch.equal(drawn[0], drawn[2])
    assert torch.equal(torch.get_rng_state(), before)


def test_nothing_is_dropped_in_evaluation_or_at_zero() -> None:
    x = torch.randn(1000)
    assert torch.equal(layer(0.5).eval()(x.clone()), x.relu())
    assert torch.equal(layer(0.0)(x.clone()), x.relu())


def test_dropout_follows_each_convolution_of_figure_6(monkeypatch: pytest.MonkeyPatch) -> None:
    """Where the paper has it: behind pooling where there is pooling."""
    masks: list[Tensor] = []
    drop = ReLUDropout.drop
    monkeypatch.setattr(ReLUDropout, "drop", lambda self, x, keep: masks.append(keep.clone()) or drop(self, x, keep))
    of = ImageTower((1, 8, 8), TowerSettings(width=2, hidden=8, dropout=0.3), batch_norm=False)
    x = torch.randn(5, 1, 8, 8)
    features = of(x)
    h = F.max_pool2d(F.relu(F.conv2d(x, of.conv1.weight, of.conv1.bias, padding=1)), 2) * masks[0] / 0.7
    h = F.relu(F.conv2d(h, of.conv2.weight, of.conv2.bias, padding=1)) * masks[1] / 0.7
    h = F.max_pool2d(F.relu(F.conv2d(h, of.conv3.weight, of.conv3.bias, padding=1)), 2) * masks[2] / 0.7
    assert len(masks) == 3
    assert all(0 < float(mask.float().mean()) < 1 for mask in masks)
    torch.testing.assert_close(features, h.reshape(5, -1) @ of.fc.weight.T + of.fc.bias, rtol=1e-4, atol=1e-5)


def test_images_that_two_poolings_leave_nothing_of_are_refused() -> None:
    with pytest.raises(ConfigError, match="images of 3 x 8 are too small for two poolings"):
        ImageTower((1, 3, 8), TowerSettings(), batch_norm=False)
