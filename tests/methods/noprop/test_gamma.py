"""The continuous-time schedules against Appendix B written out, finite differences and autograd, in float64."""

import pytest
import torch
import torch.nn.functional as F
from bench.methods.noprop.ct import NoPropCTSettings
from bench.methods.noprop.gamma import LearnedSchedule, Schedule
from torch import Tensor

from bench.runner import compute

TIMES = torch.linspace(0, 1, 21, dtype=torch.float64)
INSIDE = TIMES[1:-1]


def by_hand(schedule: Schedule, t: Tensor) -> Tensor:
    """gamma(t) = g0 + (g1 - g0) (1 - (m(t) - m(0)) / (m(1) - m(0))). Shape: (K,) to (K,)."""

    def m(t: Tensor) -> Tensor:
        if not isinstance(schedule, LearnedSchedule):
            return t
        v, b, w = schedule.inner.weight[:, 0], schedule.inner.bias, schedule.outer.weight[0]
        return sum(F.softplus(w[k]) * torch.sigmoid(F.softplus(v[k]) * t + b[k]) for k in range(len(v)))

    zero, one = torch.zeros_like(t), torch.ones_like(t)
    return schedule.g0 + (schedule.g1 - schedule.g0) * (1 - (m(t) - m(zero)) / (m(one) - m(zero)))


@pytest.fixture(params=["linear", "learned", "learned, far from its start"])
def schedule(request: pytest.FixtureRequest) -> Schedule:
    schedule = (Schedule(5.0) if request.param == "linear" else LearnedSchedule(5.0)).double()
    if "far" in request.param:
        with torch.no_grad():
            for parameter in schedule.parameters():
                parameter += 2 * torch.randn_like(parameter)
    return schedule


def test_the_noise_level_is_appendix_b_s(schedule: Schedule) -> None:
    """abar = sigmoid(-gamma), that is log(abar / (1 - abar)) = -gamma."""
    torch.testing.assert_close(schedule(TIMES).abar, 1 / (1 + torch.exp(by_hand(schedule, TIMES))), rtol=1e-12, atol=0)


def test_gamma_falls_from_g1_to_g0(schedule: Schedule) -> None:
    gamma = -torch.logit(schedule(TIMES).abar)
    assert (gamma.diff() < 0).all()
    torch.testing.assert_close(gamma[[0, -1]], torch.stack((schedule.g1, schedule.g0)), rtol=1e-12, atol=0)
    assert (schedule(TIMES).gamma_slope < 0).all()
    assert (schedule(TIMES).snr_slope > 0).all()


def test_slopes_are_finite_differences(schedule: Schedule) -> None:
    h = 1e-5
    with torch.no_grad():
        before, noise, after = schedule(INSIDE - h).abar, schedule(INSIDE), schedule(INSIDE + h).abar
    of_gamma = (torch.logit(before) - torch.logit(after)) / (2 * h)
    of_snr = (after / (1 - after) - before / (1 - before)) / (2 * h)
    torch.testing.assert_close(noise.gamma_slope, of_gamma, rtol=1e-6, atol=1e-8)
    torch.testing.assert_close(noise.snr_slope, of_snr, rtol=1e-6, atol=1e-8)


def test_slopes_are_autograd_s(schedule: Schedule) -> None:
    t = TIMES.clone().requires_grad_()
    gamma = by_hand(schedule, t)
    (of_gamma,) = torch.autograd.grad(gamma.sum(), t, retain_graph=True)
    (of_snr,) = torch.autograd.grad(torch.exp(-gamma).sum(), t)
    noise = schedule(TIMES)
    torch.testing.assert_close(noise.gamma_slope, of_gamma, rtol=1e-11, atol=1e-13)
    torch.testing.assert_close(noise.snr_slope, of_snr, rtol=1e-11, atol=1e-13)


@pytest.mark.parametrize("output", ["abar", "gamma_slope", "snr_slope"])
def test_gradients_by_the_parameters_are_those_of_the_formula(schedule: Schedule, output: str) -> None:
    """Those of the slopes against a second differentiation of gamma, which the closed form spares."""
    t, parameters = TIMES.clone().requires_grad_(), list(schedule.parameters())
    gamma = by_hand(schedule, t)
    formula = {
        "abar": lambda: torch.sigmoid(-gamma),
        "gamma_slope": lambda: torch.autograd.grad(gamma.sum(), t, create_graph=True)[0],
        "snr_slope": lambda: torch.autograd.grad(torch.exp(-gamma).sum(), t, create_graph=True)[0],
    }[output]()
    weights = torch.randn(len(TIMES), dtype=torch.float64)
    expected = torch.autograd.grad((weights * formula).sum(), parameters)
    got = torch.autograd.grad((weights * getattr(schedule(TIMES), output)).sum(), parameters)
    torch.testing.assert_close(got, expected, rtol=1e-9, atol=1e-11)


def test_the_start_is_the_documented_one() -> None:
    """gamma from 3 to -3, nearly straight: abar(0) = 0.0474, abar(1) = 0.9526."""
    end = NoPropCTSettings().end
    for schedule in (Schedule(end), LearnedSchedule(end)):
        abar = schedule(torch.tensor([0.0, 0.5, 1.0])).abar
        assert abar.tolist() == pytest.approx([0.0474, 0.5, 0.9526], abs=0.06)
        assert abar[[0, 2]].tolist() == pytest.approx([0.0474, 0.9526], abs=1e-4)


def test_autocast_leaves_the_schedule_alone(schedule: Schedule) -> None:
    """In bfloat16 a thousand times would share some fifty noise levels. In float32, for float64 is never cast."""
    single, times = schedule.float(), TIMES.float()
    with compute.precision("bfloat16", torch.device("cpu")):
        inside = single(times)
    torch.testing.assert_close(inside, single(times), rtol=0, atol=0)
