"""The parts of NoProp's bound against sampling, and the bound itself against its definition."""

import pytest
import torch
from bench.methods.noprop.objective import diffuse, prior_kl, squared_error
from bench.methods.noprop.schedule import coefficients, cosine
from torch import Tensor
from torch.distributions import Normal, kl_divergence

N = 400_000


@pytest.mark.parametrize("abar_0", [1e-3, 0.1, 0.6])
@pytest.mark.parametrize("length", [0.0, 1.0, 4.0])
def test_the_prior_term_is_the_mean_log_ratio_of_the_densities(abar_0: float, length: float) -> None:
    """KL(q || p) = E_q[log q - log p], estimated from draws of q(z_0 | y)."""
    u = torch.tensor([[0.6, 0.0, -0.8]], dtype=torch.float64) * length
    q, p = Normal(abar_0**0.5 * u, (1 - abar_0) ** 0.5), Normal(torch.zeros_like(u), 1.0)
    z = q.sample((N,))
    ratio = (q.log_prob(z) - p.log_prob(z)).sum(-1)
    error = 5 * float(ratio.std()) / N**0.5 + 1e-12
    assert float(prior_kl(u, abar_0)) == pytest.approx(float(ratio.mean()), abs=error)


def test_the_prior_term_of_pure_noise_is_nothing() -> None:
    assert prior_kl(torch.randn(5, 7), 0.0).tolist() == [0.0] * 5


def test_the_prior_term_passes_gradients_to_embedding_and_schedule() -> None:
    """Against autograd through torch's own divergence of two Gaussians."""
    u = torch.randn(4, 3, dtype=torch.float64, requires_grad=True)
    abar_0 = torch.tensor(0.2, dtype=torch.float64, requires_grad=True)
    oracle = kl_divergence(Normal(abar_0.sqrt() * u, (1 - abar_0).sqrt()), Normal(torch.zeros_like(u), 1.0)).sum(1)
    expected = torch.autograd.grad(oracle.sum(), (u, abar_0))
    torch.testing.assert_close(prior_kl(u, abar_0), oracle)
    torch.testing.assert_close(torch.autograd.grad(prior_kl(u, abar_0).sum(), (u, abar_0)), expected)


@pytest.mark.parametrize("abar", [0.2, torch.tensor([[0.0], [0.5], [0.9]]).repeat_interleave(N // 4, 0)])
def test_draws_of_the_noising_process_have_its_moments(abar: Tensor | float) -> None:
    u = torch.tensor([[2.0, -1.0]]).expand(3 * (N // 4), 2)
    z = diffuse(u, abar, torch.Generator().manual_seed(0)).view(3, N // 4, 2)
    level = torch.as_tensor(abar) if isinstance(abar, float) else torch.tensor([[0.0], [0.5], [0.9]])
    error = 5 / (N // 4) ** 0.5
    assert (z.mean(1) - level.sqrt() * torch.tensor([2.0, -1.0])).abs().max() < error
    assert (z.var(1) - (1 - level)).abs().max() < 1.5 * error
    assert (z[..., 0] * (z[..., 1] + level.sqrt().view(-1, 1))).mean(1).abs().max() < 3 * error  # independent


def test_draws_pass_gradients_to_embedding_and_schedule() -> None:
    """dz/du = sqrt(abar), dz/dabar = u / (2 sqrt(abar)) - eps / (2 sqrt(1 - abar))."""
    u, abar = torch.randn(6, 3, requires_grad=True), torch.tensor(0.3, requires_grad=True)
    eps = torch.randn(6, 3, generator=torch.Generator().manual_seed(2))
    diffuse(u, abar, torch.Generator().manual_seed(2)).sum().backward()
    torch.testing.assert_close(u.grad, torch.full((6, 3), 0.3**0.5))
    torch.testing.assert_close(abar.grad, (u.detach() / (2 * 0.3**0.5) - eps / (2 * 0.7**0.5)).sum())


def test_the_squared_error_is_summed_over_the_embedding() -> None:
    assert squared_error(torch.tensor([[1.0, 2.0], [0.0, 0.0]]), torch.tensor([[4.0, 6.0], [0.0, 1.0]])).tolist() == [
        25.0,
        1.0,
    ]


def test_the_weighted_errors_are_the_divergences_of_the_bound() -> None:
    """For eta = 1: sum_t (SNR(t) - SNR(t-1)) / 2 |uhat_t - u|^2 = sum_t KL(q(z_t | z_{t-1}, y) || p(z_t | z_{t-1}, x)).

    q comes from Bayes' rule alone: N(z_t; sqrt(abar_t) u, 1 - abar_t) times the noising step that leads from z_t to
    z_{t-1}; p is the same with uhat_t(z_{t-1}) in the place of u.
    """
    generator = torch.Generator().manual_seed(0)
    T, d = 6, 3
    steps = coefficients(cosine(T, clip=1e-2))
    abar, u = steps.abar, torch.randn(d, generator=generator, dtype=torch.float64)

    def bayes(t: int, u: Tensor, z: Tensor) -> Normal:
        alpha = abar[t - 1] / abar[t]
        precision = 1 / (1 - abar[t]) + alpha / (1 - alpha)
        mean = (abar[t].sqrt() * u / (1 - abar[t]) + alpha.sqrt() * z / (1 - alpha)) / precision
        return Normal(mean, (1 / precision).sqrt())

    divergences, weighted = torch.zeros(T, dtype=torch.float64), torch.zeros(T, dtype=torch.float64)
    for t in range(1, T + 1):
        eps = torch.randn(200, d, generator=generator, dtype=torch.float64)
        z = abar[t - 1].sqrt() * u + (1 - abar[t - 1]).sqrt() * eps
        u_hat = torch.tanh(z * t + u)
        divergences[t - 1] = kl_divergence(bayes(t, u, z), bayes(t, u_hat, z)).sum(1).mean()
        weighted[t - 1] = steps.snr_gain[t] / 2 * squared_error(u_hat, u.expand_as(z)).mean()
    torch.testing.assert_close(weighted, divergences, rtol=1e-9, atol=0)
    torch.testing.assert_close(weighted.sum(), divergences.sum(), rtol=1e-9, atol=0)
