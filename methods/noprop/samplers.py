"""From noise to label in K steps: the samplers of NoProp-CT and the ODE solvers that it shares with NoProp-FM.

Paper: Li, Teh, Pascanu 2025, arXiv 2503.24322, Eq. 3 in continuous time and section 3.3. The times are 0, 1/K, ..., 1;
s < t are neighbours, u = uhat(z_s, x, s), a_s = abar(s), a_t = abar(t), r = a_s / a_t.

    ancestral   z_t = sqrt(a_t) (1 - r) / (1 - a_s) u + sqrt(r) (1 - a_t) / (1 - a_s) z_s
                      + sqrt((1 - a_t) (1 - r) / (1 - a_s)) eps
    ddim        z_t = sqrt(a_t) u + sqrt((1 - a_t) / (1 - a_s)) (z_s - sqrt(a_s) u)
                (Song, Meng, Ermon 2021, "Denoising diffusion implicit models", without noise)
    ode         dz/dt = -gamma'(t) / 2 (sqrt(abar) u - abar z), the probability flow (Song et al. 2021, "Score-based
                generative modeling through stochastic differential equations"), by Euler or Heun

The first two are exact for any K while u does not change. Each sampler yields z_0, ..., z_K.
"""

from collections import deque
from collections.abc import Callable, Iterator
from typing import Literal

import torch
from torch import Tensor

from bench.nets.layers import noise_like

from .gamma import Noise

Solver = Literal["euler", "heun"]
Sampler = Literal["ancestral", "ddim", "euler", "heun"]
Field = Callable[[Tensor, int], Tensor]  # of (z, k): what belongs to z at the k-th time. Shape: (B, d) to (B, d)

STEP_COUNTS = (1, 2, 5, 10, 20, 50, 100, 200, 500, 1000)
SHOWN_STEPS = 100  # of a way from noise to label that is to be drawn


def solve(velocity: Field, z: Tensor, steps: int, solver: Solver) -> Iterator[Tensor]:
    """Euler's method (of first order) or Heun's (of second) on [0, 1]."""
    yield z
    for k in range(steps):
        v = velocity(z, k)
        if solver == "heun":
            v = (v + velocity(z + v / steps, k + 1)) / 2
        z = z + v / steps
        yield z


def sample(
    sampler: Sampler, u_hat: Field, noise: Noise, z: Tensor, generator: torch.Generator | None
) -> Iterator[Tensor]:
    """A sampler of the learned diffusion; without a generator every eps is 0.

    Shape: noise at the K + 1 times, z (B, d).
    """
    steps = len(noise.abar) - 1
    if sampler in ("euler", "heun"):
        abar, slope = noise.abar.tolist(), noise.gamma_slope.tolist()
        yield from solve(
            lambda z, k: -slope[k] / 2 * (abar[k] ** 0.5 * u_hat(z, k) - abar[k] * z),
            z,
            steps,
            "heun" if sampler == "heun" else "euler",
        )
        return
    yield z
    for k, (of_u, of_z, spread) in enumerate(zip(*_coefficients(sampler, noise.abar), strict=True)):
        z = of_u * u_hat(z, k) + of_z * z
        if generator is not None and spread:
            z = z.add_(noise_like(tuple(z.shape), z, generator), alpha=spread)
        yield z


def _coefficients(sampler: Sampler, abar: Tensor) -> tuple[list[float], list[float], list[float]]:
    """The factors of u, z and eps in each step. Shape: (K + 1,) to three of K."""
    before, after = abar.double()[:-1], abar.double()[1:]
    if sampler == "ddim":
        of_z = ((1 - after) / (1 - before)).sqrt()
        of_u, spread = after.sqrt() - of_z * before.sqrt(), torch.zeros_like(before)
    else:
        r = before / after
        of_u, of_z = after.sqrt() * (1 - r) / (1 - before), r.sqrt() * (1 - after) / (1 - before)
        spread = ((1 - after) * (1 - r) / (1 - before)).sqrt()
    return of_u.tolist(), of_z.tolist(), spread.tolist()


def last(trajectory: Iterator[Tensor]) -> Tensor:
    """z_K, with nothing of the way there kept."""
    return deque(trajectory, maxlen=1)[0]


def step_counts(most: int) -> list[int]:
    """Numbers of steps at which accuracy is worth knowing, up to and with `most`."""
    return [*(k for k in STEP_COUNTS if k < most), most]


def shown_times(like: Tensor) -> Tensor:
    """The times of a way that is to be drawn. Shape: (SHOWN_STEPS + 1,)."""
    return torch.arange(SHOWN_STEPS + 1, dtype=like.dtype, device=like.device) / SHOWN_STEPS
