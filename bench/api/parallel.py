"""How several workers may share the training of a method: what `parallel_plan` gives (see bench.api.abilities).

The harness owns processes, messages and clocks; a method says what its steps are made of, and nothing of workers.
"""

from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from typing import NamedTuple

import torch
from torch import Tensor, nn
from torch.optim import Optimizer

from bench.api.net import Net
from bench.api.task import Batch, Progress


class BlockStep(NamedTuple):
    """What the step of one block gives: its loss, and its gradients by what all blocks share and learn."""

    loss: Tensor
    shared: Sequence[Tensor]


@dataclass(frozen=True)
class IndependentBlocks:
    """Blocks that wait for nothing of each other.

    train: the steps of the blocks of these numbers, from 0, on one batch.
    train_shared: then the step of what all blocks share, on the gradients that each block has by it, in the blocks'
        order; where blocks have none it depends on none of them, and any worker may take it alone. Gives the loss of
        what is shared, where that has one of its own.
    """

    n_blocks: int
    train: Callable[[Sequence[int], Batch, Progress], Sequence[BlockStep]]
    train_shared: Callable[[Batch, Sequence[Sequence[Tensor]]], Tensor | None]


@dataclass(frozen=True)
class WholeGradient:
    """One loss, a mean over examples, whose gradient goes through the whole net.

    noise: what the net draws from. loss: of scores and labels. optimizer: one for these parameters, where each
    parameter's step depends on its own gradients alone.
    """

    net: Net
    noise: torch.Generator
    loss: Callable[[Tensor, Tensor], Tensor]
    optimizer: Callable[[Iterable[nn.Parameter]], Optimizer]
