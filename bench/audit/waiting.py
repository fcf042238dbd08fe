"""What the updates of a method's blocks wait for, in words, from the update-dependency matrices of all phases.

    nothing         the diagonal alone: any block could take its step at any time
    earlier blocks  entries below it: a block waits for the forward pass to reach it
    ..., in sequence    and some block begins to learn only when one that it depends on has ended
    the output      and in the last column: it waits for what the net says, or for its error, and for nothing else
    later blocks    entries elsewhere: it needs more of a later block than what comes out at the end

Each names the farthest thing that some block waits for, in some phase of training. Of two blocks the last is the output
and a later block at once, so there it cannot be told which. Nor can it be told while a block rests in all steps that
were tried, unless the method declares it frozen. These are the locks of Jaderberg et al. 2017, "Decoupled neural
interfaces using synthetic gradients": forward, update and backward locking.
"""

from collections.abc import Collection, Mapping, Sequence
from typing import ClassVar

import torch
from torch import Tensor, nn

from bench.api.column import Column, Value
from bench.api.instrument import Trial
from bench.api.method import Method, WaitsFor
from bench.api.seeds import Seeds
from bench.api.task import Batch, Progress
from bench.audit.dependency import update_dependency
from bench.catalog.register import register

CANNOT_TELL = "cannot tell"


@register
class Waiting(Trial):
    """What the update of a block waits for, measured."""

    name = "waiting"
    rank: ClassVar[int] = 59
    columns = (
        Column(
            "updates_wait_for", "updates wait for",
            "what the update of a block depends on beside the block itself, at most, measured by giving other blocks "
            "other weights in each phase of training; blank where there are no blocks to compare",
            shown="page", text=True,
        ),
    )  # fmt: skip

    def __init__(self) -> None:
        self.matrices: list[Tensor] = []

    def examine(self, method: Method, seeds: Seeds, batch: Batch, progress: Progress) -> Mapping[str, Value]:
        if len(method.blocks()) < 2:
            return {"updates_wait_for": None}
        self.matrices.append(update_dependency(method, seeds, batch, progress))
        return {"updates_wait_for": over_phases(self.matrices, frozen_blocks(method)) or CANNOT_TELL}


def updates_wait_for(method: Method, seeds: Seeds, batch: Batch, progress: Progress) -> WaitsFor | None:
    """In one place of training; None where it cannot be told."""
    if len(method.blocks()) < 2:
        return None
    return over_phases([update_dependency(method, seeds, batch, progress)], frozen_blocks(method))


def frozen_blocks(method: Method) -> set[int]:
    """The blocks without a parameter that the method means to train."""
    frozen = {id(p) for p in method.modules().get("frozen", nn.Module()).parameters()}
    return {
        k
        for k, block in enumerate(method.blocks())
        if all(id(p) in frozen or not p.requires_grad for p in block.parameters())
    }


def over_phases(matrices: Sequence[Tensor], frozen: Collection[int] = ()) -> WaitsFor | None:
    """What updates wait for in a training with these phases, in order; None where it cannot be told. Shape: (K, K)."""
    found = in_words(_joined(matrices))
    moving = torch.stack([~matrix.isnan().all(1) for matrix in matrices])  # by phase and block
    untried = {k for k, moves in enumerate(moving.any(0).tolist()) if not moves} - set(frozen)
    if found == "later blocks":
        return found
    if untried:
        return None
    return "earlier blocks, in sequence" if found == "earlier blocks" and _in_sequence(matrices, moving) else found


def _joined(matrices: Sequence[Tensor]) -> Tensor:
    """The largest entry of all phases in which a block moves; NaN where it is 0 in some and unknown in others."""
    joined = torch.full_like(matrices[0], torch.nan)
    unknown = torch.zeros_like(joined, dtype=torch.bool)
    for matrix in matrices:
        joined = torch.fmax(joined, matrix)
        unknown |= matrix.isnan() & ~matrix.isnan().all(1, keepdim=True)
    return joined.where((joined > 0) | ~unknown, torch.nan)


def _in_sequence(matrices: Sequence[Tensor], moving: Tensor) -> bool:
    """Whether some block moves only after one that it depends on has come to rest. Shape: moving (phases, K)."""
    at = [moving[:, k].nonzero().flatten().tolist() for k in range(moving.shape[1])]
    pairs = (_joined(matrices) > 0).tril(-1).nonzero().tolist()
    return any(at[j] and max(at[j]) < min(at[i]) for i, j in pairs)


def in_words(matrix: Tensor) -> WaitsFor | None:
    """None where nothing moves, where an entry that matters could not be measured, or where of two blocks one waits for
    the other behind it. Shape: (K, K).
    """
    unknown = matrix.isnan()
    moves, tried = ~unknown.all(1, keepdim=True), ~unknown.all(0, keepdim=True)
    depends = matrix > 0
    later = depends.triu(1)
    if later[:, :-1].any():
        return "later blocks"
    if not moves.any() or (unknown & moves & tried).any():
        return None
    if later.any():
        return "the output" if len(matrix) > 2 else None
    return "earlier blocks" if depends.tril(-1).any() else "nothing"
