"""What NoProp's losses share: draws of the noising process, and the KL term of the bound.

Paper: Li, Teh, Pascanu 2025, arXiv 2503.24322, Eq. 5, 6 and 8. q(z_t | y) = N(sqrt(abar_t) u_y, (1 - abar_t) I).
"""

import torch
from torch import Tensor

from bench.nets.layers import noise_like


def diffuse(u: Tensor, abar: Tensor | float, generator: torch.Generator) -> Tensor:
    """A draw of q(z_t | y) that lets gradients through to u and abar. Shape: u (B, d), abar () or (B, 1) to (B, d)."""
    z: Tensor = abar**0.5 * u + (1 - abar) ** 0.5 * noise_like(tuple(u.shape), u, generator)
    return z


def prior_kl(u: Tensor, abar_0: Tensor | float) -> Tensor:
    """KL(q(z_0 | y) || N(0, I)) = (abar_0 |u|^2 - d abar_0 - d log(1 - abar_0)) / 2, in nats. Shape: (B, d) to (B,)."""
    abar_0 = torch.as_tensor(abar_0, dtype=u.dtype, device=u.device)
    return (abar_0 * (u.square().sum(1) - u.shape[1]) - u.shape[1] * torch.log1p(-abar_0)) / 2


def squared_error(guess: Tensor, target: Tensor) -> Tensor:
    """|guess - target|^2 of each example. Shape: (B, d), (B, d) to (B,)."""
    return (guess - target).square().sum(1)
