"""The schedule's coefficients against identities, a table worked out by hand, and Monte Carlo."""

import pytest
import torch
from bench.methods.noprop.schedule import Coefficients, coefficients, cosine
from torch import Tensor

TIGHT = {"rtol": 1e-12, "atol": 1e-13}


@pytest.fixture(params=[1, 2, 10, 50])
def steps(request: pytest.FixtureRequest) -> Coefficients:
    return coefficients(cosine(request.param, clip=1e-3))


def test_the_mean_is_carried_over(steps: Coefficients) -> None:
    """a_t + b_t sqrt(abar_{t-1}) = sqrt(abar_t)"""
    left = steps.a[1:] + steps.b[1:] * steps.abar[:-1].sqrt()
    torch.testing.assert_close(left, steps.abar[1:].sqrt(), **TIGHT)


def test_the_variance_is_carried_over(steps: Coefficients) -> None:
    """b_t^2 (1 - abar_{t-1}) + c_t = 1 - abar_t"""
    left = steps.b[1:].square() * (1 - steps.abar[:-1]) + steps.c[1:]
    torch.testing.assert_close(left, 1 - steps.abar[1:], **TIGHT)


def test_the_loss_weight_is_the_step_s_own_signal_to_noise(steps: Coefficients) -> None:
    """a_t^2 / c_t = SNR(t) - SNR(t-1)"""
    torch.testing.assert_close(steps.a[1:].square() / steps.c[1:], steps.snr_gain[1:], rtol=1e-10, atol=0)


def test_signal_grows(steps: Coefficients) -> None:
    assert (steps.abar.diff() > 0).all()
    assert (steps.snr_gain[1:] > 0).all()


def test_the_cosine_schedule_at_ten_steps() -> None:
    """Worked out independently from f(u) = cos^2(pi/2 (u+s)/(1+s)) with clip 1e-3."""
    abar = [0.001, 0.024092, 0.094046, 0.203121, 0.340810, 0.493844, 0.647478, 0.786911, 0.898706, 0.972093, 0.999]
    gain = [0.0237, 0.0791, 0.1511, 0.2621, 0.4587, 0.8610, 1.8562, 5.1794, 25.9607, 964.1670]
    a = [0.1489, 0.2337, 0.2671, 0.2960, 0.3304, 0.3772, 0.4459, 0.5534, 0.7348, 0.9646]
    b = [0.1990, 0.4699, 0.5985, 0.6386, 0.6379, 0.6083, 0.5483, 0.4448, 0.2649, 0.0353]
    c = [0.93634, 0.69051, 0.47234, 0.33420, 0.23794, 0.16526, 0.10711, 0.05913, 0.02080, 0.00097]
    steps = coefficients(cosine(10, clip=1e-3))
    for got, expected, digits in (
        (steps.abar, abar, 6),
        (steps.snr_gain[1:], gain, 4),
        (steps.a[1:], a, 4),
        (steps.b[1:], b, 4),
        (steps.c[1:], c, 5),
    ):
        torch.testing.assert_close(got, _double(expected), rtol=0, atol=0.51 * 10**-digits)


def test_the_step_is_the_posterior_of_the_noising_chain() -> None:
    """z_T ~ q(. | y), then the noising chain down to z_{t-1}; a_t, b_t, c_t are what regression of z_t on
    (u, z_{t-1}) finds in those samples: they are never computed from the formulas here.
    """
    generator = torch.Generator().manual_seed(0)
    T, t, n, u = 5, 3, 1_000_000, 0.7
    steps = coefficients(cosine(T, clip=1e-2))
    alpha = steps.abar[:-1] / steps.abar[1:]
    z = steps.abar[T].sqrt() * u + (1 - steps.abar[T]).sqrt() * _normal(n, generator)
    chain = {T: z}
    for s in range(T, t - 1, -1):
        chain[s - 1] = alpha[s - 1].sqrt() * chain[s] + (1 - alpha[s - 1]).sqrt() * _normal(n, generator)
    after, before = chain[t], chain[t - 1]
    slope = ((after - after.mean()) * (before - before.mean())).mean() / before.var()
    rest = after - slope * before
    error = 4 / n**0.5
    assert abs(slope - steps.b[t]) < error
    assert abs(rest.mean() / u - steps.a[t]) < error / u
    assert abs(rest.var() - steps.c[t]) < error


@pytest.mark.parametrize("abar", [[0.9, 0.5, 0.1], [0.1, 0.5, 1.0], [-0.1, 0.5, 0.9], [0.1, 0.1, 0.9]])
def test_a_schedule_that_does_not_grow_within_bounds_is_refused(abar: list[float]) -> None:
    with pytest.raises(ValueError, match="abar must grow"):
        coefficients(_double(abar))


def test_starting_from_pure_noise_is_legal() -> None:
    steps = coefficients(_double([0.0, 0.5, 0.9]))
    torch.testing.assert_close(steps.b[1], _double(0.0))
    torch.testing.assert_close(steps.a[1], _double(0.5).sqrt())


def _double(values: float | list[float]) -> Tensor:
    return torch.tensor(values, dtype=torch.float64)


def _normal(n: int, generator: torch.Generator) -> Tensor:
    return torch.randn(n, generator=generator, dtype=torch.float64)
