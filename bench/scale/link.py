"""Messages between workers, counted and timed.

Bytes are those of the payload, as the algorithm needs them: a message of b bytes counts b, a broadcast (n - 1) b at its
root, an all-reduce 2 (n - 1) / n b at each worker (a ring's, which is the least that is possible).
"""

import time
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import torch
import torch.distributed as dist
from torch import Tensor

from bench.measure.clock import synchronize


class Link:
    """One worker's. blocked_s: seconds in which it could do nothing but wait for others. sent_bytes: by it alone."""

    def __init__(self, rank: int, workers: int, device: torch.device) -> None:
        self.rank, self.workers, self.device = rank, workers, device
        self.blocked_s, self.sent_bytes = 0.0, 0.0
        self._on_the_way: list[tuple[Any, Tensor]] = []  # a tensor must live until it is sent

    @property
    def is_last(self) -> bool:
        return self.rank == self.workers - 1

    def restart(self) -> None:
        """Count from 0."""
        self.blocked_s, self.sent_bytes = 0.0, 0.0

    @contextmanager
    def blocked(self) -> Iterator[None]:
        synchronize(self.device)
        began = time.perf_counter()
        yield
        synchronize(self.device)
        self.blocked_s += time.perf_counter() - began

    def barrier(self) -> None:
        if self.workers > 1:
            with self.blocked():
                dist.barrier()

    def send(self, tensor: Tensor, to: int) -> None:
        """Without waiting; `flush` waits for all that was sent."""
        tensor = tensor.detach().contiguous()
        self.sent_bytes += tensor.nbytes
        self._on_the_way.append((dist.isend(tensor, to), tensor))

    def flush(self) -> None:
        with self.blocked():
            for handle, _ in self._on_the_way:
                handle.wait()
        self._on_the_way.clear()

    def receive(self, into: Tensor, source: int) -> Tensor:
        with self.blocked():
            dist.recv(into, source)
        return into

    def broadcast(self, tensor: Tensor, root: int) -> None:
        if self.rank == root:
            self.sent_bytes += (self.workers - 1) * tensor.nbytes
        with self.blocked():
            dist.broadcast(tensor, root)

    def count_all_reduce(self, tensor: Tensor) -> None:
        self.sent_bytes += 2 * (self.workers - 1) / self.workers * tensor.nbytes

    def all_reduce(self, tensor: Tensor) -> None:
        """The sum over workers, in place."""
        if self.workers > 1:
            self.count_all_reduce(tensor)
            with self.blocked():
                dist.all_reduce(tensor)
