"""Bytes that autograd retains for the way back, at the moment when they are most.

What a layer saves is held from its forward call until its graph is freed. A storage counts as a whole (a view keeps
all of it alive) and once, however many layers saved it. Deterministic, alike on CPU and GPU, blind to the allocator.

Not seen: tensors that a custom autograd Function keeps as plain attributes, and what activation checkpointing holds,
which puts hooks of its own in place of these.
"""

from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import contextmanager
from typing import ClassVar

from torch import Tensor
from torch.autograd.graph import saved_tensors_hooks

from bench.api.column import Column
from bench.api.instrument import Probe, Reading
from bench.api.method import Method
from bench.catalog.register import register
from bench.measure.threads import in_new_threads

Storage = int  # its address, unique while it lives


@register
class Retained(Probe):
    """Bytes retained for backward in one training step."""

    name = "retained"
    hooks = True
    by_shapes = True
    rank: ClassVar[int] = 40
    columns = (
        Column(
            "retained_bytes", "retained, MiB",
            "most bytes that autograd keeps for the way back at one time in a training step, parameters excluded",
            scale=2**-20, better="lower", shown="terminal",
        ),
    )  # fmt: skip

    @contextmanager
    def watch(self, method: Method, outside: Sequence[Tensor]) -> Iterator[Reading]:
        with saved_for_backward(p for part in method.modules().values() for p in part.parameters()) as peak:
            yield lambda: {"retained_bytes": peak()}


def retained_bytes(act: Callable[[], object], parameters: Iterable[Tensor] = ()) -> int:
    """Peak of the bytes saved for backward while `act` runs; see `saved_for_backward`."""
    with saved_for_backward(parameters) as peak:
        act()
    return peak()


@contextmanager
def saved_for_backward(parameters: Iterable[Tensor] = ()) -> Iterator[Callable[[], int]]:
    """Gives the peak of the bytes saved for backward inside, in this thread and those that begin there.

    The peak over times of sum_s nbytes(s), s the distinct storages that live graphs hold, less those of
    `parameters`, which are there in any case.

    Raises: RuntimeError from torch where torch.func.grad or vjp is used inside, which allow no such hooks.
    Source: torch.autograd.graph.saved_tensors_hooks.
    """
    apart = {_storage(p) for p in parameters}
    events: list[tuple[Storage, int]] = []  # (+bytes saved, or -1 when given back); appending is atomic

    def pack(tensor: Tensor) -> _Saved:
        return _Saved(tensor, events)

    def hooks() -> saved_tensors_hooks:
        return saved_tensors_hooks(pack, _Saved.unpack)

    with hooks(), in_new_threads(hooks):
        yield lambda: _peak(event for event in events if event[0] not in apart)


class _Saved:
    """A tensor in a graph, which ends with the graph."""

    def __init__(self, tensor: Tensor, events: list[tuple[Storage, int]]) -> None:
        self.tensor = tensor.detach()  # with its history a saved output would keep its own graph alive
        self.events = events
        events.append((_storage(tensor), tensor.untyped_storage().nbytes()))

    def unpack(self) -> Tensor:
        return self.tensor

    def __del__(self) -> None:
        self.events.append((_storage(self.tensor), -1))


def _storage(tensor: Tensor) -> Storage:
    return int(tensor.untyped_storage()._cdata)


def _peak(events: Iterable[tuple[Storage, int]]) -> int:
    holders: Counter[Storage] = Counter()
    size: dict[Storage, int] = {}
    now = most = 0
    for storage, nbytes in events:
        if nbytes >= 0:
            if not holders[storage]:
                size[storage] = nbytes
                now += nbytes
                most = max(most, now)
            holders[storage] += 1
        else:
            holders[storage] -= 1
            if not holders[storage]:
                now -= size[storage]
    return most
