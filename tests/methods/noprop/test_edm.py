"""Noise levels, preconditioning and sampler against quadrature, scipy, Monte Carlo and closed forms."""

import math
from bisect import bisect_right
from itertools import pairwise

import numpy as np
import pytest
import torch
from bench.methods.noprop.edm import (
    EDMSettings,
    Interval,
    NoiseLevels,
    euler_step,
    inference_levels,
    owner,
    precondition,
)
from scipy import integrate, stats
from torch import Tensor

PAPER = {}
NARROW = {"sigma_min": 0.2, "sigma_max": 0.6}  # where truncation takes most of the mass away
FAR = {"sigma_min": 1.0, "sigma_max": 80.0, "P_mean": -1.2}  # nothing but the upper tail
CASES = pytest.mark.parametrize("settings", [PAPER, NARROW, FAR], ids=["paper", "narrow", "tail"])


def levels(settings: dict[str, float]) -> NoiseLevels:
    return NoiseLevels.of(EDMSettings(**settings))


def truncated(settings: dict[str, float], interval: Interval | None = None):
    """scipy's law of ln sigma."""
    s = EDMSettings(**settings)
    low, high = interval or (s.sigma_min, s.sigma_max)
    a, b = ((math.log(sigma) - s.P_mean) / s.P_std for sigma in (low, high))
    return stats.truncnorm(a, b, loc=s.P_mean, scale=s.P_std)


def mass(settings: dict[str, float], interval: Interval) -> float:
    """By quadrature of the log-normal's density over sigma, so much of what lies between sigma_min and sigma_max."""
    s = EDMSettings(**settings)

    def of(low: float, high: float) -> float:
        def density(t: float) -> float:  # of t = ln sigma
            return math.exp(-(((t - s.P_mean) / s.P_std) ** 2) / 2)

        return integrate.quad(density, math.log(low), math.log(high), epsabs=0, epsrel=1e-12, limit=200)[0]

    return of(*interval) / of(s.sigma_min, s.sigma_max)


@CASES
@pytest.mark.parametrize("B", [1, 3, 10])
def test_every_block_has_an_equal_share_of_the_truncated_mass(settings: dict[str, float], B: int) -> None:
    """Quantiles of the law before truncation would leave the outer blocks less."""
    shares = levels(settings).shares(B)
    assert len(shares) == B
    for share in shares:
        assert mass(settings, share) == pytest.approx(1 / B, abs=1e-6)


@CASES
def test_shares_follow_one_another_from_most_noise_to_least(settings: dict[str, float]) -> None:
    shares, s = levels(settings).shares(7), EDMSettings(**settings)
    assert (shares[0].high, shares[-1].low) == (s.sigma_max, s.sigma_min)
    for noisier, cleaner in pairwise(shares):
        assert noisier.low == cleaner.high > cleaner.low


@pytest.mark.parametrize("gamma", [0.0, 0.05, 0.3])
def test_overlap_stretches_an_interval_by_gamma_of_its_log_length_at_each_end(gamma: float) -> None:
    whole = Interval(0.002, 80.0)
    for low, high in levels(PAPER).shares(6)[1:-1]:
        got = Interval(low, high).widened(gamma, whole)
        length = math.log(high) - math.log(low)
        assert math.log(got.low) == pytest.approx(math.log(low) - gamma * length)
        assert math.log(got.high) == pytest.approx(math.log(high) + gamma * length)


def test_overlap_ends_where_the_noise_does() -> None:
    """A block beyond sigma_max or below sigma_min would learn what no prediction asks."""
    whole = Interval(0.002, 80.0)
    first, *_, last = (share.widened(0.05, whole) for share in levels(PAPER).shares(4))
    assert (first.high, last.low) == (80.0, 0.002)
    assert whole.widened(0.05, whole) == whole


@CASES
def test_draws_are_the_log_normal_truncated_to_the_interval(settings: dict[str, float]) -> None:
    """All within, and by the law between the ends, to which a uniform or unwidened draw would not keep."""
    generator = torch.Generator().manual_seed(0)
    of = levels(settings)
    for share in (of.whole, *(share.widened(0.05, of.whole) for share in of.shares(4))):
        sigma = of.draw(20_000, share, torch.empty(0), generator)
        assert sigma.shape == (20_000, 1)
        assert sigma.dtype == torch.float32
        assert float(sigma.min()) >= share.low * (1 - 1e-6)
        assert float(sigma.max()) <= share.high * (1 + 1e-6)
        test = stats.kstest(sigma.double().log().flatten().numpy(), truncated(settings, share).cdf)
        assert test.pvalue > 1e-4, share


def test_draws_in_the_upper_tail_are_no_staircase() -> None:
    """In float32, Phi has 30 values above sigma = 60."""
    of = levels(PAPER)
    sigma = of.draw(1000, Interval(60.0, 80.0), torch.empty(0), torch.Generator().manual_seed(0))
    assert len(sigma.unique()) > 900


def test_means_over_blocks_are_means_over_all_noise() -> None:
    """Without overlap, the mean of the blocks' losses is the loss under the whole law: shares are strata of it."""

    def mean(of: object) -> float:
        return float(of.expect(lambda t: math.sin(3 * t) + math.exp(-t)))  # type: ignore[attr-defined]

    shares = levels(PAPER).shares(5)
    expected = mean(truncated(PAPER))
    assert np.mean([mean(truncated(PAPER, share)) for share in shares]) == pytest.approx(expected, rel=1e-6)


@pytest.mark.parametrize("sigma_data", [0.5, 0.3])
@pytest.mark.parametrize("sigma", [0.01, 0.3, 1.0, 20.0])
def test_preconditioning_gives_inputs_and_targets_of_unit_variance(sigma: float, sigma_data: float) -> None:
    """F reads c_in z and is to say (u - c_skip z) / c_out, which the weight makes count alike at every level."""
    generator, n = torch.Generator().manual_seed(0), 400_000
    u, eps = (torch.randn(n, generator=generator, dtype=torch.float64) for _ in range(2))
    u = sigma_data * u
    z = u + sigma * eps
    c = precondition(torch.tensor(sigma, dtype=torch.float64), sigma_data)
    error = 5 * (2 / n) ** 0.5
    assert float((c.c_in * z).var()) == pytest.approx(1, abs=error)
    assert float(((u - c.c_skip * z) / c.c_out).var()) == pytest.approx(1, abs=error)
    assert float((c.weight * (u - c.c_skip * z).square()).mean()) == pytest.approx(1, abs=error)


def test_preconditioning_is_edm_s_table_1() -> None:
    sigma, s = torch.tensor([0.002, 0.5, 3.0, 80.0], dtype=torch.float64), 0.5
    c = precondition(sigma, s)
    torch.testing.assert_close(c.c_skip, s**2 / (sigma**2 + s**2))
    torch.testing.assert_close(c.c_out, sigma * s / (sigma**2 + s**2) ** 0.5)
    torch.testing.assert_close(c.c_in, 1 / (sigma**2 + s**2) ** 0.5)
    torch.testing.assert_close(c.c_noise, sigma.log() / 4)
    torch.testing.assert_close(c.weight, (sigma**2 + s**2) / (sigma * s) ** 2)


@pytest.mark.parametrize("steps", [2, 3, 10, 64])
def test_predictions_ask_at_equal_steps_of_mass(steps: int) -> None:
    got = inference_levels(levels(PAPER), steps)
    assert (got[0], got[-2], got[-1]) == (80.0, 0.002, 0.0)
    below = truncated(PAPER).cdf([math.log(sigma) for sigma in got[:-1]])
    np.testing.assert_allclose(below, np.linspace(1, 0, steps), atol=1e-6)
    assert inference_levels(levels(PAPER), 1) == [80.0, 0.0]


@pytest.mark.parametrize("B", [1, 2, 3, 10])
def test_as_many_steps_as_blocks_ask_each_block_once(B: int) -> None:
    assert [owner(k, B, B) for k in range(B)] == list(range(B))


@pytest.mark.parametrize("steps", [1, 2, 5, 23, 100])
def test_a_level_is_asked_of_the_block_whose_interval_holds_it(steps: int) -> None:
    """Shares of four blocks have their edges at quarters of the mass; on an edge, the noisier block answers."""
    of, B = levels(PAPER), 4
    edges = sorted(share.low for share in of.shares(B))
    for k, sigma in enumerate(inference_levels(of, steps)[:-1]):
        noisier = bisect_right(edges, sigma * (1 + 1e-9))  # how many of the edges lie at or below
        assert owner(k, steps, B) == B - noisier


def follow(denoise, sigmas: list[float], z: Tensor) -> Tensor:
    for sigma, after in pairwise(sigmas):
        z = euler_step(z, denoise(z, sigma), sigma, after)
    return z


def test_the_probability_flow_of_a_gaussian_ends_at_its_closed_form() -> None:
    """u ~ N(m, s^2): D is the posterior mean, and z - m shrinks by sqrt((s^2 + sigma^2) / (s^2 + sigma_max^2))."""
    m, s = 0.7, 0.4
    z = torch.linspace(-200, 200, 41, dtype=torch.float64)

    def denoise(z: Tensor, sigma: float) -> Tensor:
        return (s**2 * z + sigma**2 * m) / (s**2 + sigma**2)

    exact = m + (z - m) * s / (s**2 + 80.0**2) ** 0.5
    grids = {K: np.append(np.geomspace(80.0, 1e-4, K), 0.0).tolist() for K in (500, 1000)}
    errors = {K: float((follow(denoise, sigmas, z) - exact).abs().max()) for K, sigmas in grids.items()}
    assert errors[1000] < 0.01
    assert errors[500] / errors[1000] == pytest.approx(2, rel=0.1)  # of first order, as Euler's method is


def test_the_last_step_ends_at_what_the_denoiser_says() -> None:
    z, D = torch.randn(5, 3), torch.randn(5, 3)
    assert torch.equal(euler_step(z, D, 0.002, 0.0), D)
    torch.testing.assert_close(euler_step(z, D, 2.0, 0.5), z + (0.5 - 2.0) * (z - D) / 2.0)


@pytest.mark.parametrize(
    ("settings", "complaint"),
    [
        ({"sigma_min": 2.0, "sigma_max": 1.0}, "sigma_min=2 must be below sigma_max=1"),
        ({"P_mean": 40.0}, "next to nothing lies between sigma_min=0.002 and sigma_max=80"),
    ],
)
def test_noise_that_cannot_be_shared_out_is_refused(settings: dict[str, float], complaint: str) -> None:
    with pytest.raises(ValueError, match=complaint):
        EDMSettings(**settings)
