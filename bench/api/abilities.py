"""What some methods can do beside learning and predicting: a method that has these members has the ability.

The harness asks `isinstance(method, Parallel)`; nothing is to be inherited.
"""

from collections.abc import Iterable
from typing import Protocol, runtime_checkable

from torch import nn

from bench.api.parallel import IndependentBlocks, WholeGradient


@runtime_checkable
class Parallel(Protocol):
    """A method whose training several workers can share (`bench scale`)."""

    def parallel_plan(self) -> IndependentBlocks | WholeGradient:
        """What a step is made of. Raises: ConfigError where the settings do not allow it."""
        ...


@runtime_checkable
class MicroBatched(Protocol):
    """A method that can learn the same from a mini-batch in parts (`bench run --on-oom shrink`)."""

    def use_micro_batches(self, parts: int) -> str | None:
        """Learn from each mini-batch in so many parts, one after another, by the same update but for rounding.

        Called before the first step, where whole batches run out of memory. Returns None, or the reason why it cannot
        be done, and then nothing has changed.
        """
        ...


@runtime_checkable
class Compiling(Protocol):
    """A method that says itself what torch.compile may have (`bench run --compile`); for others it has the blocks."""

    def compile(self) -> None: ...


def compile_blocks(blocks: Iterable[nn.Module]) -> None:
    """Compile blocks, and their children, which may be called alone."""
    for block in blocks:
        parts: list[nn.Module] = [block, *block.children()]
        for part in parts:
            part.compile(dynamic=False)
