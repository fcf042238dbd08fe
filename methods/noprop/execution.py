"""How NoProp-DT's blocks take their steps: the step of one, and several one after another or over the CPU's threads."""

from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from typing import NamedTuple, TypeVar

import torch
from torch import Tensor, nn
from torch.optim import Optimizer

from bench import Batch, Objective

from .labels import mean_embedding
from .objective import diffuse, squared_error

Result = TypeVar("Result")


class Term(NamedTuple):
    """Block t's term of the loss: abar_{t-1} of its input, and eta/2 (SNR(t) - SNR(t-1))."""

    t: int
    abar: float
    weight: float


def train_block(
    block: nn.Module,
    optimizer: Optimizer,
    embedding: Tensor,
    term: Term,
    share: float,
    batch: Batch,
    noise: torch.Generator,
    objective: Objective,
) -> tuple[Tensor, Tensor | None]:
    """One step of a block on `share` times its term: the loss, and its gradient by W_embed where that is learned.

    The block's graph and gradients are freed before this returns.
    """
    # a leaf of its own, so that blocks that run at once do not add to one gradient
    W = embedding.detach().requires_grad_(embedding.requires_grad)
    u = objective.project(batch.y, W)
    z = diffuse(u, term.abar, noise)
    u_hat = mean_embedding(block(z, batch.x), W)
    loss = share * term.weight * squared_error(u_hat, u).mean()
    loss.backward()
    optimizer.step()
    optimizer.zero_grad(set_to_none=True)
    return loss.detach(), W.grad


def in_turn(tasks: Sequence[Callable[[], Result]]) -> list[Result]:
    return [task() for task in tasks]


def threaded(tasks: Sequence[Callable[[], Result]]) -> list[Result]:
    """Each task on one thread of its own, as many at a time as torch has intra-op threads; one alone has them all."""
    if len(tasks) == 1:
        return in_turn(tasks)
    threads = torch.get_num_threads()
    autocast = torch.is_autocast_enabled("cpu"), torch.get_autocast_dtype("cpu")  # a new thread has none

    def enter() -> None:
        torch.set_num_threads(1)
        torch.set_autocast_enabled("cpu", autocast[0])
        torch.set_autocast_dtype("cpu", autocast[1])
        torch.set_autocast_cache_enabled(False)

    torch.set_num_threads(1)
    try:
        with ThreadPoolExecutor(threads, initializer=enter) as pool:
            return list(pool.map(lambda task: task(), tasks))
    finally:
        torch.set_num_threads(threads)
