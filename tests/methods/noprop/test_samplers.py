"""The samplers against exact solutions: of the diffusion for a known label, and of ODEs made for it."""

import pytest
import torch
from bench.methods.noprop.gamma import LearnedSchedule, Noise, Schedule
from bench.methods.noprop.samplers import Sampler, last, sample, solve, step_counts
from torch import Tensor

U = torch.tensor([0.8, -0.6], dtype=torch.float64)
N = 100_000


def times(steps: int) -> Tensor:
    return torch.arange(steps + 1, dtype=torch.float64) / steps


def noise(steps: int, schedule: Schedule | None = None) -> Noise:
    with torch.no_grad():
        return (schedule or LearnedSchedule(5.0)).double()(times(steps))


def draws_of_q(abar: Tensor, n: int = N) -> Tensor:
    """Draws of q(z_t | y) = N(sqrt(abar_t) u, 1 - abar_t)."""
    return abar.sqrt() * U + (1 - abar).sqrt() * torch.randn(n, 2, dtype=torch.float64)


def slope(errors: list[float]) -> list[float]:
    """Orders of convergence seen where the number of steps doubles."""
    return torch.tensor(errors).log2().diff().neg().tolist()


@pytest.mark.parametrize("steps", [1, 2, 7])
def test_ancestral_steps_keep_the_marginals_of_the_noising_process(steps: int) -> None:
    """From z_0 ~ q(z_0 | y), with uhat = u_y, every z_t has the mean and variance of q(z_t | y)."""
    schedule = noise(steps)
    path = sample("ancestral", lambda z, k: U, schedule, draws_of_q(schedule.abar[0]), torch.Generator().manual_seed(1))
    error = 5 / N**0.5
    for z, abar in zip(path, schedule.abar, strict=True):
        assert (z.mean(0) - abar.sqrt() * U).abs().max() < error * (1 - abar).sqrt()
        assert (z.var(0) / (1 - abar) - 1).abs().max() < 2**0.5 * error


@pytest.mark.parametrize("steps", [1, 2, 7])
def test_ddim_carries_each_draw_to_its_place(steps: int) -> None:
    """A point so many standard deviations from the mean of q(z_0 | y) ends as many from that of q(z_1 | y)."""
    schedule = noise(steps)
    start = draws_of_q(schedule.abar[0], 50)
    for z, abar in zip(sample("ddim", lambda z, k: U, schedule, start, None), schedule.abar, strict=True):
        torch.testing.assert_close(
            (z - abar.sqrt() * U) / (1 - abar).sqrt(),
            (start - schedule.abar[0].sqrt() * U) / (1 - schedule.abar[0]).sqrt(),
        )


def guess(z: Tensor, k: int) -> Tensor:
    """A uhat that changes with everything it may depend on."""
    return torch.tanh(z.flip(1) + 0.3 * k)


@pytest.mark.parametrize("eps", [True, False])
def test_an_ancestral_step_is_the_posterior_by_bayes_rule(eps: bool) -> None:
    """q(z_t | z_s, u) from N(z_t; sqrt(a_t) u, 1 - a_t) times N(z_s; sqrt(r) z_t, 1 - r), r = a_s / a_t."""
    schedule, z = noise(5), torch.randn(4, 2, dtype=torch.float64)
    path = sample("ancestral", guess, schedule, z, torch.Generator().manual_seed(3) if eps else None)
    replay = torch.Generator().manual_seed(3)
    expected = [z]
    for k in range(5):
        a_s, a_t = schedule.abar[k], schedule.abar[k + 1]
        r = a_s / a_t
        precision = 1 / (1 - a_t) + r / (1 - r)
        z = (a_t.sqrt() * guess(z, k) / (1 - a_t) + r.sqrt() * z / (1 - r)) / precision
        if eps:
            z = z + torch.randn(4, 2, generator=replay, dtype=torch.float64) / precision.sqrt()
        expected.append(z)
    torch.testing.assert_close(list(path), expected)


def test_a_ddim_step_keeps_the_noise_that_its_guess_implies() -> None:
    """eps = (z_s - sqrt(a_s) uhat) / sqrt(1 - a_s) is put back at the next level."""
    schedule, z = noise(5), torch.randn(4, 2, dtype=torch.float64)
    path, expected = list(sample("ddim", guess, schedule, z, torch.Generator())), [z]
    for k in range(5):
        eps = (z - schedule.abar[k].sqrt() * guess(z, k)) / (1 - schedule.abar[k]).sqrt()
        z = schedule.abar[k + 1].sqrt() * guess(z, k) + (1 - schedule.abar[k + 1]).sqrt() * eps
        expected.append(z)
    torch.testing.assert_close(path, expected)


@pytest.mark.parametrize(("solver", "order"), [("euler", 1), ("heun", 2)])
@pytest.mark.parametrize("schedule", [Schedule, LearnedSchedule])
def test_the_probability_flow_converges_in_order(solver: Sampler, order: int, schedule: type[Schedule]) -> None:
    """With uhat = u: z_t = sqrt(abar_t) u + sqrt((1 - abar_t) / (1 - abar_0)) (z_0 - sqrt(abar_0) u)."""
    shape, start, errors = schedule(5.0), torch.tensor([[1.0, 1.0]], dtype=torch.float64), []
    for steps in (100, 200, 400):
        at = noise(steps, shape)
        exact = at.abar[-1].sqrt() * U + ((1 - at.abar[-1]) / (1 - at.abar[0])).sqrt() * (start - at.abar[0].sqrt() * U)
        errors.append(float((last(sample(solver, lambda z, k: U, at, start, None)) - exact).norm()))
    assert slope(errors) == pytest.approx([order] * 2, abs=0.12)


@pytest.mark.parametrize(("solver", "order"), [("euler", 1), ("heun", 2)])
def test_the_probability_flow_reads_the_guess_at_its_own_time_and_place(solver: Sampler, order: int) -> None:
    """A guess that depends on z and time, made so that z_t = sin(3 t) solves the flow exactly."""
    errors = []
    for steps in (100, 200, 400):
        at, t = noise(steps), times(steps)
        z_star, slope_star = torch.sin(3 * t), 3 * torch.cos(3 * t)
        u_star = (slope_star / (-at.gamma_slope / 2) + at.abar * z_star) / at.abar.sqrt()
        path = sample(
            solver,
            lambda z, k, u=u_star, z_star=z_star: u[k] - (z - z_star[k]),
            at,
            torch.zeros(1, 1, dtype=torch.float64),
            None,
        )
        errors.append(float((torch.cat(list(path))[:, 0] - z_star).abs().max()))
    assert slope(errors) == pytest.approx([order] * 2, abs=0.15)


@pytest.mark.parametrize(("solver", "order"), [("euler", 1), ("heun", 2)])
def test_the_solvers_converge_in_order(solver: Sampler, order: int) -> None:
    """dz/dt = -2 z + cos(5 t), z(0) = 1: z = (2 cos 5t + 5 sin 5t) / 29 + 27/29 exp(-2 t)."""
    errors = []
    for steps in (50, 100, 200):
        t = times(steps)
        exact = (2 * torch.cos(5 * t) + 5 * torch.sin(5 * t)) / 29 + 27 / 29 * torch.exp(-2 * t)
        path = solve(lambda z, k, t=t: -2 * z + torch.cos(5 * t[k]), torch.ones(1, dtype=torch.float64), steps, solver)
        errors.append(float((torch.cat(list(path)) - exact).abs().max()))
    assert slope(errors) == pytest.approx([order] * 2, abs=0.1)


@pytest.mark.parametrize("sampler", ["ancestral", "ddim", "euler", "heun"])
def test_a_path_has_its_start_and_one_point_a_step(sampler: Sampler) -> None:
    z = torch.randn(3, 2, dtype=torch.float64)
    path = list(sample(sampler, guess, noise(6), z, torch.Generator()))
    assert len(path) == 7
    assert torch.equal(path[0], z)


@pytest.mark.parametrize(
    ("most", "counts"),
    [(1, [1]), (2, [1, 2]), (7, [1, 2, 5, 7]), (1000, [1, 2, 5, 10, 20, 50, 100, 200, 500, 1000]), (1200, None)],
)
def test_numbers_of_steps_rise_to_the_most(most: int, counts: list[int] | None) -> None:
    assert step_counts(most) == (counts or [1, 2, 5, 10, 20, 50, 100, 200, 500, 1000, 1200])
