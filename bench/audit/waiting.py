"""What the updates of a method's blocks wait for, in words, read off the update-dependency matrix.

    nothing         the diagonal alone: any block could take its step at any time
    earlier blocks  entries below it: a block waits for the forward pass to reach it
    the output      and in the last column: it waits for what the net says, or for its error, and for nothing else
    later blocks    entries elsewhere: it needs more of a later block than what comes out at the end

Each names the farthest thing that some block waits for. Of two blocks the last is the output and a later block at once,
so there it cannot be told which. These are the locks of Jaderberg et al. 2017, "Decoupled neural interfaces using
synthetic gradients": forward, update and backward locking.
"""

from collections.abc import Mapping
from typing import ClassVar

from torch import Tensor

from bench.api.column import Column, Value
from bench.api.instrument import Trial
from bench.api.method import Method, WaitsFor
from bench.api.seeds import Seeds
from bench.api.task import Batch, Progress
from bench.audit.dependency import update_dependency
from bench.catalog.register import register


@register
class Waiting(Trial):
    """What the update of a block waits for, measured."""

    name = "waiting"
    rank: ClassVar[int] = 59
    columns = (
        Column(
            "updates_wait_for", "updates wait for",
            "what the update of a block depends on beside the block itself, at most, measured by giving other blocks "
            "other weights; blank where there are no blocks to compare or it cannot be told",
            shown="page", text=True,
        ),
    )  # fmt: skip

    def examine(self, method: Method, seeds: Seeds, batch: Batch, progress: Progress) -> Mapping[str, Value]:
        return {"updates_wait_for": updates_wait_for(method, seeds, batch, progress)}


def updates_wait_for(method: Method, seeds: Seeds, batch: Batch, progress: Progress) -> WaitsFor | None:
    """By the columns of one block amid the others and of the last; None where it cannot be told."""
    K = len(method.blocks())
    if K < 2:
        return None
    return in_words(update_dependency(method, seeds, batch, progress, columns=((K - 1) // 2, K - 1)))


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
