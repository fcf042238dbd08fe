"""How many numbers a method learns, and how many of them inference needs."""

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import ClassVar

from torch import Tensor

from bench.api.column import Column
from bench.api.instrument import Probe, Reading
from bench.api.method import Method, Role
from bench.catalog.register import register


@register
class Parameters(Probe):
    """Parameters by role, as the method declares them."""

    name = "parameters"
    by_shapes = True
    rank: ClassVar[int] = 50
    columns = (
        Column("params_inference", "parameters", "parameters that inference needs", shown="page"),
        Column(
            "params_training_only", "in training only", "parameters that training alone needs", shown="page", blank_at=0
        ),
    )

    @contextmanager
    def watch(self, method: Method, outside: Sequence[Tensor]) -> Iterator[Reading]:
        def count(role: Role) -> int:
            part = method.modules().get(role)
            return sum(p.numel() for p in part.parameters()) if part is not None else 0

        yield lambda: {
            "params_inference": count("inference"),
            "params_training_only": count("training_only"),
        }
