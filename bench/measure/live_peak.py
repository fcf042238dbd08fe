"""Bytes of all tensors alive, at the moment when they are most: weights, gradients, optimiser state, activations.

Every operation's outputs are noted as they appear, below autograd, so that the way back is seen like the way there;
a storage counts as a whole, once, until it is freed. Deterministic, alike on CPU and GPU, blind to the allocator.

Not seen: scratch memory within one kernel, and tensors made in C++ that no operation returned.
"""

import gc
import weakref
from collections.abc import Callable, Container, Iterable, Iterator, Sequence
from contextlib import contextmanager
from typing import Any, ClassVar

import torch
from torch import Tensor
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves

from bench.api.column import Column
from bench.api.instrument import Probe, Reading
from bench.api.method import Method
from bench.catalog.register import register
from bench.measure.threads import in_new_threads

Storage = int  # its address, unique while it lives


@register
class LivePeak(Probe):
    """The peak of live tensors in one training step, less those that were there before the method."""

    name = "live-peak"
    hooks = True
    by_shapes = True
    rank: ClassVar[int] = 41
    columns = (
        Column(
            "live_peak_bytes", "live peak, MiB",
            "most bytes of tensors alive at one time in a training step: weights, gradients, optimiser, activations",
            scale=2**-20, better="lower", shown="page",
        ),
    )  # fmt: skip

    @contextmanager
    def watch(self, method: Method, outside: Sequence[Tensor]) -> Iterator[Reading]:
        with live_tensors(outside) as peak:
            yield lambda: {"live_peak_bytes": peak()}


def live_peak_bytes(act: Callable[[], object]) -> int:
    """Peak of the bytes of live tensors while `act` runs; see `live_tensors`."""
    with live_tensors() as peak:
        act()
    return peak()


@contextmanager
def live_tensors(outside: Iterable[Tensor] = ()) -> Iterator[Callable[[], int]]:
    """Gives the peak of the bytes of live tensors inside, in this thread and those that begin there.

    The peak over times of sum_s nbytes(s), s the distinct storages alive on any device, less those of the tensors
    `outside`. Other tensors of the process that have no part in what happens inside count as well.
    """
    ledger = _Ledger({int(t.untyped_storage()._cdata) for t in outside})
    ledger.note_all(alive())
    with _Watch(ledger), in_new_threads(lambda: _Watch(ledger)):
        yield ledger.peak


class _Ledger:
    """Storages as they come and go. Several threads may write; appending and setdefault are atomic."""

    def __init__(self, outside: Container[Storage]) -> None:
        self._outside = outside
        self._events: list[tuple[Storage, int]] = []
        self._ends: dict[Storage, weakref.ref[torch.UntypedStorage]] = {}

    def note(self, tensor: Tensor) -> None:
        storage = tensor.untyped_storage()
        key = int(storage._cdata)
        if key in self._outside:
            return
        self._events.append((key, storage.nbytes()))

        def freed(end: weakref.ref[torch.UntypedStorage]) -> None:
            self._events.append((key, 0))
            del self._ends[key]

        self._ends.setdefault(key, weakref.ref(storage, freed))

    def note_all(self, tensors: Iterable[Tensor]) -> None:
        for tensor in tensors:
            self.note(tensor)

    def peak(self) -> int:
        size: dict[Storage, int] = {}
        now = most = 0
        for key, nbytes in tuple(self._events):
            now += nbytes - size.get(key, 0)
            size[key] = nbytes
            most = max(most, now)
        self._ends.clear()
        return most


class _Watch(TorchDispatchMode):
    def __init__(self, ledger: _Ledger) -> None:
        super().__init__()  # type: ignore[no-untyped-call]
        self._ledger = ledger

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        outputs = func(*args, **(kwargs or {}))
        for output in tree_leaves(outputs):
            if isinstance(output, Tensor):
                self._ledger.note(output)
        return outputs


def alive() -> Iterator[Tensor]:
    """Tensors that Python knows of, and the gradients of leaves, which it may not have met yet."""
    tensors = [t for t in gc.get_objects() if issubclass(type(t), Tensor)]
    yield from tensors
    yield from (t.grad for t in tensors if t.is_leaf and t.grad is not None)
