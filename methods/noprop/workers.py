"""Blocks spread over processes: each worker trains its share of the blocks, and nothing passes between them.

Parameters, running statistics and the mini-batch lie in shared memory, so the parent predicts with what the workers
train; optimisers and generators live in the workers and are fetched for a checkpoint alone.
"""

import weakref
from collections.abc import Mapping, Sequence
from copy import deepcopy
from dataclasses import dataclass
from multiprocessing.connection import Connection
from typing import Any

import torch
import torch.multiprocessing as mp
from torch import Tensor, nn
from torch.optim import AdamW

from bench import Batch
from bench.nets.layers import lend_generator
from methods.noprop.execution import Term, train_block


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
        self.connections: list[Connection] = []
        self.waiting: Mapping[str, Any] = {}  # a state that came before the workers did
        weakref.finalize(self, _dismiss, self.connections)

    def step(self, ts: Sequence[int], batch: Batch, share: float) -> list[Tensor]:
        """The losses of blocks ts (1-based) on a batch, after a step of each."""
        shared = self._shared(batch)
        shared.x.copy_(batch.x)
        shared.y.copy_(batch.y)
        autocast = torch.is_autocast_enabled("cpu"), torch.get_autocast_dtype("cpu")  # a new process has none
        for connection in self.connections:
            connection.send(("step", list(ts), share, autocast))
        losses: dict[int, Tensor] = {}
        for connection in self.connections:
            losses |= {t: torch.tensor(loss) for t, loss in _answer(connection).items()}
        return [losses[t] for t in ts]

    def state_dict(self) -> dict[str, Any]:
        """Optimiser and generator of each block, by its number; empty before the first step."""
        state = dict(self.waiting)
        for connection in self.connections:
            connection.send(("state",))
            state |= _answer(connection)
        return state

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        if not self.connections:
            self.waiting = state
        for connection in self.connections:
            connection.send(("load", state))

    def _shared(self, batch: Batch) -> Batch:
        """The batch's place in shared memory; the first one shows its shape, and the workers are started on it."""
        if self.batch is None or self.batch.x.shape != batch.x.shape:
            state, self.waiting = self.state_dict(), {}
            _dismiss(self.connections)
            self.batch = Batch(*(torch.empty_like(of).share_memory_() for of in batch))
            context = mp.get_context("spawn")  # a fork would inherit torch's threads in an unknown state
            for k in range(self.n_workers):
                here, there = context.Pipe()
                context.Process(target=_work, args=(there,), daemon=True).start()
                there.close()
                here.send((self.charges[k :: self.n_workers], self.embedding, self.batch))
                self.connections.append(here)
            if state:
                self.load_state_dict(state)
        return self.batch


def _answer(connection: Connection) -> dict[Any, Any]:
    """Raises: RuntimeError where the worker is gone; what befell it stands in stderr."""
    try:
        answer: dict[Any, Any] = connection.recv()
    except (EOFError, OSError) as error:
        raise RuntimeError("a process that trained blocks has ended") from error
    return answer


def _dismiss(connections: list[Connection]) -> None:
    """Workers end where their pipe ends."""
    while connections:
        connections.pop().close()


def _work(connection: Connection) -> None:
    """A worker: first told what is in its charge, then asleep until asked."""
    torch.set_num_threads(1)
    charges, embedding, batch = connection.recv()
    generators, optimizers = {}, {}
    for charge in charges:
        t = charge.term.t
        generators[t] = torch.Generator().set_state(charge.noise)
        lend_generator(charge.block, generators[t])
        optimizers[t] = AdamW(charge.block.parameters(), lr=charge.lr, weight_decay=charge.weight_decay, fused=True)
    while True:
        try:
            verb, *arguments = connection.recv()
        except (EOFError, OSError):
            return
        if verb == "step":
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
        elif verb == "state":  # copies, both ways: what is sent stays in shared memory and would go on changing
            states = {
                str(t): {"optimizer": of.state_dict(), "noise": generators[t].get_state()}
                for t, of in optimizers.items()
            }
            connection.send(deepcopy(states))
        else:
            for t, of in optimizers.items():
                state = deepcopy(arguments[0][str(t)])
                of.load_state_dict(state["optimizer"])
                generators[t].set_state(state["noise"])
