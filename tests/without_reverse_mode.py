"""For tests of rules that never differentiate in reverse mode."""

from collections.abc import Iterator
from contextlib import contextmanager

from bench.audit.reverse_mode import observed


class ReverseModeError(RuntimeError):
    """Reverse-mode differentiation was called where it is forbidden."""


@contextmanager
def forbidden() -> Iterator[None]:
    """Any reverse-mode call inside raises ReverseModeError."""

    def refuse(roots: object, inputs: object) -> None:
        raise ReverseModeError("reverse-mode differentiation was called")

    with observed(refuse):
        yield
