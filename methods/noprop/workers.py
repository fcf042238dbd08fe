"""Blocks spread over processes: each worker trains its share of the blocks, and nothing passes between them.

Parameters, running statistics and the mini-batch lie in shared memory, so the parent predicts with what the workers
train; optimisers and generators live in the workers and are fetched for a checkpoint alone.
"""

import io
import weakref
from collections.abc import Iterator, Mapping, Sequence
from copy import deepcopy
from dataclasses import dataclass, replace
from multiprocessing.connection import Connection
from multiprocessing.process import BaseProcess
from typing import Any

import torch
import torch.multiprocessing as mp
from torch import Tensor, nn
from torch.optim import AdamW

from bench import Batch
from bench.nets.layers import lend_generator
from methods.noprop.execution import Term, train_block

PATIENCE_S = 10.0  # for a worker to end by itself

Worker = tuple[Connection, BaseProcess]
Storages = dict[torch.dtype, Tensor]


@dataclass
class Charge:
    """One block in a worker's hands. The generator travels as its state: it cannot travel itself."""

    term: Term
    block: nn.Module
    noise: Tensor
    lr: float
    weight_decay: float


class BlockWorkers:
    """Worker processes, one intra-op thread each, that train blocks on the batches handed to `step`."""

    def __init__(self, charges: Sequence[Charge], embedding: Tensor, n_workers: int) -> None:
        self.embedding = embedding.share_memory_()
        self.batch: Batch | None = None
        self.charges, self.n_workers = charges, min(n_workers, len(charges))
        self.workers: list[Worker] = []
        self.waiting: Mapping[str, Any] = {}  # a state that came before the workers did
        weakref.finalize(self, _dismiss, self.workers)

    def start(self) -> None:
        """Start the workers, if that has not been done: blocks are then in their final place and format."""
        if self.workers:
            return
        context = mp.get_context("spawn")  # a fork would inherit torch's threads in an unknown state
        for k in range(self.n_workers):
            here, there = context.Pipe()
            process = context.Process(target=_work, args=(there,), daemon=True)
            process.start()
            there.close()
            charges = self.charges[k :: self.n_workers]
            # a tensor of its own for every parameter would cost a file descriptor each
            places = [to_shared_memory(charge.block) for charge in charges]
            empty = [replace(charge, block=deepcopy(charge.block).to("meta")) for charge in charges]
            here.send((empty, places, self.embedding))
            self.workers.append((here, process))
        for connection, _ in self.workers:
            _answer(connection)
        if self.waiting:
            self.load_state_dict(self.waiting)
            self.waiting = {}

    def step(self, ts: Sequence[int], batch: Batch, share: float) -> list[Tensor]:
        """The losses of blocks ts (1-based) on a batch, after a step of each."""
        self.start()
        self._show(batch)
        autocast = torch.is_autocast_enabled("cpu"), torch.get_autocast_dtype("cpu")  # a new process has none
        self._tell("step", list(ts), share, autocast)
        losses: dict[int, Tensor] = {}
        for connection, _ in self.workers:
            losses |= {t: torch.tensor(loss) for t, loss in _answer(connection).items()}
        return [losses[t] for t in ts]

    def state_dict(self) -> dict[str, Any]:
        """Optimiser and generator of each block, by its number; empty before the workers have started."""
        state = dict(self.waiting)
        self._tell("state")
        for connection, _ in self.workers:
            state |= _unpacked(_answer(connection))
        return state

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        if not self.workers:
            self.waiting = state
            return
        self._tell("load", _packed(state))

    def _show(self, batch: Batch) -> None:
        """Copy the batch to its place in shared memory, of which workers are told where its shape is new."""
        if self.batch is None or self.batch.x.shape != batch.x.shape:
            self.batch = Batch(*(torch.empty_like(of).share_memory_() for of in batch))
            self._tell("batch", self.batch)
        self.batch.x.copy_(batch.x)
        self.batch.y.copy_(batch.y)

    def _tell(self, *message: Any) -> None:
        for connection, _ in self.workers:
            connection.send(message)


def to_shared_memory(module: nn.Module) -> Storages:
    """Move a module's parameters and buffers into shared memory, formats kept: one storage for each dtype."""
    sizes: dict[torch.dtype, int] = {}
    for of in _tensors(module):
        sizes[of.dtype] = sizes.get(of.dtype, 0) + of.numel()
    storages: Storages = {dtype: torch.empty(n, dtype=dtype).share_memory_() for dtype, n in sizes.items()}
    for of, place in zip(_tensors(module), _places(module, storages), strict=True):
        of.data = place.copy_(of.detach())
    return storages


def from_shared_memory(module: nn.Module, storages: Storages) -> nn.Module:
    """A copy without memory, on the meta device, of a module that was moved there: put it on the same storages."""
    places = list(_places(module, storages))
    module.to_empty(device="cpu")
    for of, place in zip(_tensors(module), places, strict=True):
        of.data = place
    return module


def _tensors(module: nn.Module) -> Iterator[Tensor]:
    yield from module.parameters()
    yield from module.buffers()


def _places(module: nn.Module, storages: Storages) -> Iterator[Tensor]:
    """Where each tensor lies, one behind another."""
    at = dict.fromkeys(storages, 0)
    for of in _tensors(module):
        yield storages[of.dtype].as_strided(of.shape, of.stride(), at[of.dtype])
        at[of.dtype] += of.numel()


def _packed(state: Mapping[str, Any]) -> bytes:
    """As bytes: tensors would be shared, and go on changing where they were sent from."""
    file = io.BytesIO()
    torch.save(dict(state), file)
    return file.getvalue()


def _unpacked(state: bytes) -> dict[str, Any]:
    found: dict[str, Any] = torch.load(io.BytesIO(state), weights_only=True)
    return found


def _answer(connection: Connection) -> Any:
    """Raises: RuntimeError where the worker is gone; what befell it stands in stderr."""
    try:
        return connection.recv()
    except (EOFError, OSError) as error:
        raise RuntimeError("a process that trained blocks has ended") from error


def _dismiss(workers: list[Worker]) -> None:
    """Workers end where their pipe ends; none is left behind, for its memory would be counted with others'."""
    ending = workers.copy()
    workers.clear()
    for connection, _ in ending:
        connection.close()
    for _, process in ending:
        process.join(PATIENCE_S)
        if process.is_alive():
            process.kill()
            process.join()


def _work(connection: Connection) -> None:
    """A worker: first told what is in its charge, then asleep until asked."""
    torch.set_num_threads(1)
    charges, places, embedding = connection.recv()
    generators, optimizers = {}, {}
    for charge, place in zip(charges, places, strict=True):
        t, block = charge.term.t, from_shared_memory(charge.block, place)
        generators[t] = torch.Generator().set_state(charge.noise)
        lend_generator(block, generators[t])
        optimizers[t] = AdamW(block.parameters(), lr=charge.lr, weight_decay=charge.weight_decay, fused=True)
    connection.send("ready")
    while True:
        try:
            verb, *arguments = connection.recv()
        except (EOFError, OSError):
            return
        if verb == "batch":
            (batch,) = arguments
        elif verb == "step":
            ts, share, (enabled, dtype) = arguments
            losses = {}
            with torch.autocast("cpu", dtype, enabled=enabled, cache_enabled=False):
                for charge in charges:
                    if (t := charge.term.t) in ts:
                        loss, _ = train_block(
                            charge.block, optimizers[t], embedding, charge.term, share, batch, generators[t]
                        )
                        losses[t] = float(loss)
            connection.send(losses)
        elif verb == "state":
            connection.send(
                _packed(
                    {
                        str(t): {"optimizer": of.state_dict(), "noise": generators[t].get_state()}
                        for t, of in optimizers.items()
                    }
                )
            )
        else:
            state = _unpacked(arguments[0])
            for t, of in optimizers.items():
                of.load_state_dict(state[str(t)]["optimizer"])
                generators[t].set_state(state[str(t)]["noise"])
