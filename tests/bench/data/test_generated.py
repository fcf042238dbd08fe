"""Generated tasks: signals made anew step by step, parities by their definition, and streams that never change."""

import itertools

import numpy as np
import pytest
import torch

from bench.api.errors import ConfigError
from bench.catalog.catalog import Catalog
from bench.data import load
from bench.data.mnist1d import MNIST1D, generated, signal, templates
from bench.data.mnist1d_image import MNIST1DImage
from bench.data.sparse_parity import SparseParity


class Fixed:
    """A stand-in for a stream: u = 0.5 throughout, no noise, a given roll."""

    def __init__(self, u: float, roll: int) -> None:
        self.u, self.roll = u, roll

    def rand(self) -> float:
        return self.u

    def randint(self, high: int) -> int:
        assert high == 48
        return self.roll

    def randn(self, n: int) -> np.ndarray:
        return np.zeros(n)


def test_templates_are_standardised_and_begin_at_zero() -> None:
    """Catches the deviation over 11 points in place of 12, and a shift before the scale."""
    x = templates()
    assert x.shape == (10, 12)
    np.testing.assert_allclose(x[:, 0], 0)
    np.testing.assert_allclose(6 * x.std(1), 1)


@pytest.mark.parametrize("u", [0.5, 0.1])
def test_a_signal_without_noise_by_hand(u: float) -> None:
    """Catches padding in front, 24 lengths for 25, a roll before the stretch, a shear before the noise or of the wrong
    sign, 72 points read at 40 by steps in place of lines.
    """
    template, roll = templates()[3], 7
    padded = list(template + 1e-8) + [0.0] * (36 + int(u * 25))
    long = [_line(padded, t / 71) * (1 + 0.4 * (u - 0.5)) for t in range(72)]
    rolled = [long[(t - roll) % 72] for t in range(72)]
    sheared = [v - 0.75 * (u - 0.5) * (t / 71 - 0.5) for t, v in enumerate(rolled)]
    expected = [_line(sheared, t / 39) for t in range(40)]
    np.testing.assert_allclose(signal(template, Fixed(u, roll)), expected, atol=1e-12)


def _line(x: list[float], place: float) -> float:
    """x at a place between 0 and 1, on straight lines between its points."""
    at = place * (len(x) - 1)
    k = min(int(at), len(x) - 2)
    return x[k] + (at - k) * (x[k + 1] - x[k])


def test_noise_fills_what_the_template_leaves_empty() -> None:
    """Smoothed noise alone where there is no template, white noise everywhere, of the published sizes."""
    draws = np.random.RandomState(0)
    flat = np.zeros(12)
    flat[:] = 1e-6  # a template without shape: with 1e-8 added it is nowhere 0
    x = np.stack([signal(flat, draws) for _ in range(4000)])
    steps = np.diff(x, axis=1)
    smooth = 0.25 / np.sqrt(2 * 2 * np.sqrt(np.pi))  # the deviation of noise smoothed by a Gaussian of 2 points
    assert np.quantile(np.abs(x), 0.5) < smooth
    assert x.std() == pytest.approx(np.sqrt(0.8 * smooth**2 + 0.75**2 / 144), rel=0.15)
    assert np.corrcoef(x[:, 20], x[:, 21])[0, 1] > 0.6
    assert steps.std() < x.std()


def test_mnist1d_never_changes_and_has_two_views() -> None:
    signals = generated()
    assert signals.x.shape == (5000, 40)
    assert signals.y.bincount().tolist() == [500] * 10
    rows, images = load(MNIST1D()), load(MNIST1DImage())
    assert torch.equal(rows.test.x.squeeze(2), images.test.x.flatten(1))
    assert torch.equal(rows.test.y, images.test.y)


def test_parity_is_of_k_bits_and_nothing_less_tells() -> None:
    """Found by search: exactly one set of three bits decides; no smaller set says anything."""
    data = SparseParity("n8-k3").read(None)
    x, y = data.train.x, data.train.y
    assert set(x.unique().tolist()) == {-1.0, 1.0}
    told = {
        places: float(((x[:, places].prod(1) > 0) == (y == 1)).float().mean())
        for k in (1, 2, 3)
        for places in itertools.combinations(range(8), k)
    }
    assert [len(places) for places, share in told.items() if share == 1] == [3]
    assert max(abs(share - 0.5) for share in told.values() if share < 1) < 0.03
    assert torch.equal(x, SparseParity("n8-k3").read(None).train.x)


@pytest.mark.parametrize("wrong", ["", "20,5", "n5-k6", "n0-k0", "n9999-k1", "n20-k5 ", "N20-K5", "n٢-k١"])
def test_parities_that_cannot_be(wrong: str) -> None:
    with pytest.raises(ConfigError, match="sparse-parity"):
        Catalog().dataset(f"sparse-parity:{wrong}")
