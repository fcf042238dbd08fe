"""Bytes of all tensors alive at the moment when they are most, and what they are then.

Every operation's outputs are noted as they appear, below autograd, so that the way back is seen like the way there;
a storage counts as a whole, once, until it is freed, and is of one kind all that time (`bench.measure.tensor_kinds`).
Deterministic, alike on CPU and GPU, blind to the allocator.

Not seen: scratch memory within one kernel, and tensors made in C++ that no operation returned.
"""

import gc
import weakref
from collections.abc import Callable, Container, Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any, ClassVar

import torch
from torch import Tensor
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves

from bench.api.column import Column, Value
from bench.api.instrument import Probe, Reading
from bench.api.method import Method
from bench.catalog.register import register
from bench.measure.tensor_kinds import KINDS, Kind, becoming_gradients, optimised, optimizers, parameters_of, state_of
from bench.measure.threads import in_new_threads

Storage = int  # its address, unique while it lives
Split = dict[Kind, int]  # bytes


@register
class LivePeak(Probe):
    """The peak of live tensors in one training step, less those that were there before the method, and its parts."""

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
        *(
            Column(
                f"live_{kind}_bytes", f"live {kind}, MiB", f"bytes of the live peak that are {what}",
                scale=2**-20, better="lower",
            )
            for kind, what in KINDS.items()
        ),
    )  # fmt: skip

    @contextmanager
    def watch(self, method: Method, outside: Sequence[Tensor]) -> Iterator[Reading]:
        with live_tensors(parameters_of(method), outside) as peak:
            yield lambda: _columns(peak())

    def over_phases(self, readings: Sequence[tuple[int, Mapping[str, Value]]]) -> Mapping[str, Value]:
        """Those of the phase with the highest peak."""
        return max((of for _, of in readings), key=lambda of: float(of["live_peak_bytes"] or 0))


def live_peak_bytes(act: Callable[[], object]) -> int:
    """Peak of the bytes of live tensors while `act` runs; see `live_tensors`."""
    with live_tensors() as peak:
        act()
    return sum(peak().values())


@contextmanager
def live_tensors(parameters: Iterable[Tensor] = (), outside: Iterable[Tensor] = ()) -> Iterator[Callable[[], Split]]:
    """Gives, by kind, the bytes of live tensors at their peak inside, in this thread and those that begin there.

    The peak over times of sum_s nbytes(s), s the distinct storages alive on any device, less those of the tensors
    `outside`. Other tensors of the process that have no part in what happens inside count as well. parameters: what
    is learnt, beside what an optimiser has.
    """
    ledger = _Ledger({int(t.untyped_storage()._cdata) for t in outside})
    ledger.mark(alive(), "other")
    with optimizers() as found:
        parameters = [*parameters, *optimised(found)]
        ledger.mark(parameters, "parameters")
        ledger.mark((p.grad for p in parameters if p.grad is not None), "gradients")
        ledger.mark(state_of(found), "optimizer")
        told = becoming_gradients(parameters, lambda tensor: ledger.mark([tensor], "gradients"))
        with told, _Watch(ledger), in_new_threads(lambda: _Watch(ledger)):
            yield ledger.peak
            ledger.mark(state_of(found), "optimizer")


def _columns(split: Split) -> dict[str, int]:
    return {"live_peak_bytes": sum(split.values()), **{f"live_{kind}_bytes": n for kind, n in split.items()}}


@dataclass(eq=False, slots=True)
class _Life:
    """A storage from where it was first seen to its end."""

    kind: Kind


class _Ledger:
    """Storages as they come and go. Several threads may write; appending and setdefault are atomic."""

    def __init__(self, outside: Container[Storage]) -> None:
        self._outside = outside
        self._events: list[tuple[_Life, int]] = []
        self._alive: dict[Storage, tuple[_Life, weakref.ref[torch.UntypedStorage]]] = {}

    def note(self, tensor: Tensor, kind: Kind) -> _Life:
        """A tensor is there. kind: that of its storage, if this is its first."""
        storage = tensor.untyped_storage()
        key = int(storage._cdata)

        def freed(end: weakref.ref[torch.UntypedStorage]) -> None:
            self._events.append((self._alive.pop(key)[0], 0))

        life, _ = self._alive.setdefault(key, (_Life(kind), weakref.ref(storage, freed)))
        self._events.append((life, 0 if key in self._outside else storage.nbytes()))
        return life

    def mark(self, tensors: Iterable[Tensor], kind: Kind) -> None:
        """These are of a kind, and were from their beginning, unless they are known as something else already."""
        for tensor in tensors:
            life = self.note(tensor, kind)
            if life.kind in ("activations", "other"):
                life.kind = kind

    def peak(self) -> Split:
        size: dict[_Life, int] = {}
        now: Split = dict.fromkeys(KINDS, 0)
        most, total, highest = dict(now), 0, 0
        for life, nbytes in tuple(self._events):
            change = nbytes - size.get(life, 0)
            size[life] = nbytes
            now[life.kind] += change
            total += change
            if total > highest:
                most, highest = dict(now), total
        self._alive.clear()
        return most


class _Watch(TorchDispatchMode):
    def __init__(self, ledger: _Ledger) -> None:
        super().__init__()  # type: ignore[no-untyped-call]
        self._ledger = ledger

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        outputs = func(*args, **(kwargs or {}))
        for output in tree_leaves(outputs):
            if isinstance(output, Tensor) and output.layout is torch.strided:
                self._ledger.note(output, "activations")
        return outputs


def alive() -> Iterator[Tensor]:
    """Tensors that Python knows of, and the gradients of leaves, which it may not have met yet.

    Sparse tensors are left out: they have no storage.
    """
    tensors = [t for t in gc.get_objects() if issubclass(type(t), Tensor) and t.layout is torch.strided]
    yield from tensors
    yield from (t.grad for t in tensors if t.is_leaf and t.grad is not None and t.grad.layout is torch.strided)
