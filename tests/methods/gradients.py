"""A way to see the gradients that optimisers step along."""

from collections.abc import Iterable

import torch
from torch import Tensor


def watched(optimizers: Iterable[torch.optim.Optimizer]) -> dict[int, Tensor]:
    """At each step takes the gradients of all parameters of that optimiser, by id."""
    seen: dict[int, Tensor] = {}

    def look(optimizer: torch.optim.Optimizer, args: object, kwargs: object) -> None:
        held = [p for group in optimizer.param_groups for p in group["params"] if p.grad is not None]
        seen.update({id(p): p.grad.clone() for p in held})

    for optimizer in optimizers:
        optimizer.register_step_pre_hook(look)
    return seen
