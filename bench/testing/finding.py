"""What a check has to say: a violation in one line, and the result that is made of it."""

import textwrap
from collections.abc import Callable, Sequence
from typing import NamedTuple

from bench.api.errors import MethodError


class ContractViolation(AssertionError):
    """What a method does against the contract, in one line."""


class Result(NamedTuple):
    """The outcome of one check. message: what was found, empty where it passed; expected: the reason why a failure was
    foreseen by the method itself.
    """

    name: str
    ok: bool
    message: str
    seconds: float
    expected: str = ""

    @property
    def is_fine(self) -> bool:
        """Passed where that was to be expected, or failed as foreseen."""
        return self.ok != bool(self.expected)


def complaint(act: Callable[[], None]) -> str | None:
    """What a check has to say against a stranger's code; None where it passed."""
    try:
        act()
    except (ContractViolation, MethodError) as violation:
        return str(violation)
    except Exception as error:  # it may raise anything
        return textwrap.shorten(f"{type(error).__name__}: {error}", 200)
    return None


def require(holds: bool, violation: str) -> None:
    if not holds:
        raise ContractViolation(violation)


def few(names: Sequence[str]) -> str:
    """The first three of them, and how many more there are."""
    return ", ".join(names[:3]) + (f" and {len(names) - 3} more" if len(names) > 3 else "")
