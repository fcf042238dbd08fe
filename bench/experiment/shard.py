"""A part of a plan, for a machine of several that share nothing: `--shard 2/3`."""

import re
from collections.abc import Sequence
from dataclasses import dataclass
from typing import TypeVar

from bench.api.errors import ConfigError

T = TypeVar("T")


@dataclass(frozen=True)
class Shard:
    """The number-th of `count` parts, counted from 1."""

    number: int
    count: int

    @classmethod
    def parse(cls, text: str) -> "Shard":
        """Raises: ConfigError."""
        found = re.fullmatch(r"([0-9]{1,6})/([0-9]{1,6})", text)
        if not found or not 1 <= int(found[1]) <= int(found[2]):
            raise ConfigError(f"--shard {text}: write i/n with i from 1 to n, as 1/3")
        return cls(int(found[1]), int(found[2]))

    def of(self, plan: Sequence[T]) -> list[T]:
        """One stretch of the plan: parts are disjoint, differ by one run at most, and give the plan when joined.

        Seeds are outermost in a plan, so that what is compared by seed was run on one machine as far as it goes.
        """
        first, end = (len(plan) * k // self.count for k in (self.number - 1, self.number))
        return list(plan[first:end])
