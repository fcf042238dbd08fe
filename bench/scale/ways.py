"""The three ways in which a training step is spread over workers, each as one process group runs it.

    blocks     each worker has some blocks of a method whose blocks wait for nothing, and sees every batch whole
    data       each worker has the whole net and a part of every batch; gradients are averaged (torch's DDP)
    pipeline   each worker has consecutive blocks; micro-batches flow through them, forward and back (GPipe)

GPipe: Huang et al. 2019, "GPipe: Efficient training of giant neural networks using pipeline parallelism". Written here,
for torch.distributed.pipelining tells neither the bytes that it sends nor the time that it waits. Micro-batches go back
in the order in which they came, so that gradients add up as in one process that takes them one after another.
"""

import itertools
import time
from abc import ABC, abstractmethod
from collections.abc import Sequence
from typing import Any

import torch
import torch.distributed as dist
from torch import Tensor, nn
from torch.futures import Future
from torch.nn.parallel import DistributedDataParallel

from bench.api.method import Method
from bench.api.net import Net
from bench.api.parallel import IndependentBlocks, WholeGradient
from bench.api.task import Batch, Progress
from bench.scale.link import Link


def shares(n: int, workers: int) -> list[range]:
    """Which of n consecutive things each worker has: as many as any other, or one more."""
    edges = [-(-k * n // workers) for k in range(workers + 1)]
    return [range(a, b) for a, b in itertools.pairwise(edges)]


class Way(ABC):
    """A worker's part of every step. owned: what of the method's weights is the one to keep after training, by name."""

    owned: dict[str, nn.Module]

    @abstractmethod
    def step(self, batch: Batch, progress: Progress) -> None: ...


class Alone(Way):
    """One process: the method's own step."""

    def __init__(self, method: Method) -> None:
        self.method = method
        self.owned = _named(method, range(len(method.blocks())), with_rest=True)

    def step(self, batch: Batch, progress: Progress) -> None:
        self.method.train_step(batch, progress)


class ByBlocks(Way):
    """What blocks share is stepped by every worker alike, on the gradients of all; by the last where blocks have none.

    Gradients are gathered, not summed on the way: they then add up in the blocks' order, and the result is that of one
    process to the last bit.
    """

    def __init__(self, method: Method, blocks: IndependentBlocks, link: Link) -> None:
        self.blocks, self.link = blocks, link
        self.of = shares(blocks.n_blocks, link.workers)
        self.own = self.of[link.rank]
        self.owned = _named(method, self.own, with_rest=link.is_last)

    def step(self, batch: Batch, progress: Progress) -> None:
        steps = self.blocks.train(self.own, batch, progress)
        if steps[0].shared:
            self.blocks.train_shared(batch, self._gathered([step.shared for step in steps]))
        elif self.link.is_last:
            self.blocks.train_shared(batch, [[] for _ in range(self.blocks.n_blocks)])

    def _gathered(self, mine: Sequence[Sequence[Tensor]]) -> list[list[Tensor]]:
        """The gradients of all blocks in their order."""
        shapes = [grad.shape for grad in mine[0]]
        flat = torch.stack([torch.cat([grad.flatten() for grad in of_block]) for of_block in mine])
        everyone = [
            flat if rank == self.link.rank else flat.new_empty(len(own), flat.shape[1])
            for rank, own in enumerate(self.of)
        ]
        for root, rows in enumerate(everyone):
            self.link.broadcast(rows, root)
        sizes = [shape.numel() for shape in shapes]
        return [
            [part.view(shape) for part, shape in zip(row.split(sizes), shapes, strict=True)]
            for rows in everyone
            for row in rows
        ]


class ByData(Way):
    """DDP. Statistics of batch norm stay with each worker, whose part of the batch they are of."""

    def __init__(self, method: Method, whole: WholeGradient, link: Link) -> None:
        self.whole, self.link = whole, link
        self.net = DistributedDataParallel(whole.net, broadcast_buffers=False)
        self.net.register_comm_hook(None, self._reduce)
        self.optimizer = whole.optimizer(whole.net.parameters())
        self.ready_at = 0.0
        self.owned = _named(method, range(len(whole.net.blocks)), with_rest=True) if link.rank == 0 else {}

    def step(self, batch: Batch, progress: Progress) -> None:
        self.net.train()
        own = shares(len(batch.y), self.link.workers)[self.link.rank]
        x, y = batch.x[own.start : own.stop], batch.y[own.start : own.stop]
        # DDP divides by the number of workers, whose parts may differ by one example
        share = self.link.workers * len(own) / len(batch.y)
        loss = share * self.whole.loss(self.net(x, self.whole.noise), y)
        loss.backward()
        self.link.blocked_s += time.perf_counter() - self.ready_at
        self.optimizer.step()
        self.optimizer.zero_grad(set_to_none=True)

    # DDP asks for this very annotation; torch.distributed has the class and does not say that it exports it
    def _reduce(self, _: object, bucket: dist.GradBucket) -> Future[Tensor]:  # type: ignore[name-defined]
        """As DDP does it. Of the time after the last bucket is ready, all is waiting."""
        gradients = bucket.buffer().div_(self.link.workers)
        self.link.count_all_reduce(gradients)
        self.ready_at = time.perf_counter()
        work: Any = dist.all_reduce(gradients, async_op=True)
        done: Future[Tensor] = work.get_future().then(lambda future: future.value()[0])
        return done


class ByStages(Way):
    """GPipe. What is of no block (gates, a read-out) every worker has, and steps alike on its summed gradient."""

    def __init__(
        self, method: Method, whole: WholeGradient, link: Link, n_micro: int, image_shape: tuple[int, ...]
    ) -> None:
        self.whole, self.link, self.n_micro = whole, link, n_micro
        self.net = whole.net
        self.own = shares(len(self.net.blocks), link.workers)[link.rank]
        self.rest = rest_of(self.net)
        blocks = [p for k in self.own for p in self.net.blocks[k].parameters()]
        self.optimizer = whole.optimizer([*blocks, *self.rest])
        some = next(self.net.parameters())
        widths = hidden_shapes(self.net, some.new_zeros(1, *image_shape))
        self.handed, self.handing = widths[self.own.start], widths[self.own.stop]
        self.owned = _named(method, self.own, with_rest=link.rank == 0)

    def step(self, batch: Batch, progress: Progress) -> None:
        self.net.train()
        inputs: list[Tensor] = []
        outputs: list[Tensor] = []
        parts = list(zip(batch.x.chunk(self.n_micro), batch.y.chunk(self.n_micro), strict=True))
        for x, y in parts:
            h = self._from_before(x)
            inputs.append(h)
            for k in self.own:
                h = self.net.block(k, h, x)
            if self.link.is_last:
                h = len(y) / len(batch.y) * self.whole.loss(self.net.head(h), y)
            else:
                self.link.send(h, self.link.rank + 1)
            outputs.append(h)
        for k, (x, _) in enumerate(parts):
            if self.link.is_last:
                outputs[k].backward()
            else:
                into = x.new_empty(len(x), *self.handing, dtype=outputs[k].dtype)
                torch.autograd.backward(outputs[k], self.link.receive(into, self.link.rank + 1))
            if self.link.rank > 0:
                grad = inputs[k].grad
                assert grad is not None
                self.link.send(grad, self.link.rank - 1)
            outputs[k] = inputs[k] = inputs[k].new_empty(0)  # the graph is no longer needed
        self.link.flush()
        self._sum_rest()
        self.optimizer.step()
        self.optimizer.zero_grad(set_to_none=True)

    def _from_before(self, x: Tensor) -> Tensor:
        if self.link.rank == 0:
            return self.net.stem(x, self.whole.noise)
        return self.link.receive(x.new_empty(len(x), *self.handed), self.link.rank - 1).requires_grad_()

    def _sum_rest(self) -> None:
        """Of what is of no block, each worker has the gradient that its own blocks give."""
        if not self.rest:
            return
        flat = torch.cat([(torch.zeros_like(p) if p.grad is None else p.grad).flatten() for p in self.rest])
        self.link.all_reduce(flat)
        for p, grad in zip(self.rest, flat.split([p.numel() for p in self.rest]), strict=True):
            p.grad = grad.view_as(p)


def rest_of(net: Net) -> list[nn.Parameter]:
    """The parameters that are of no block."""
    of_blocks = {id(p) for p in net.blocks.parameters()}
    return [p for p in net.parameters() if id(p) not in of_blocks]


@torch.no_grad()
def hidden_shapes(net: Net, image: Tensor) -> list[tuple[int, ...]]:
    """Shapes, without the batch, of what goes before each block and of what follows the last."""
    net.eval()
    h = net.stem(image, None)
    found = [tuple(h.shape[1:])]
    for k in range(len(net.blocks)):
        h = net.block(k, h, image)
        found.append(tuple(h.shape[1:]))
    return found


def _named(method: Method, blocks: Sequence[int], *, with_rest: bool) -> dict[str, nn.Module]:
    """Blocks by number, and all that is of no block as one module."""
    own = method.blocks()
    named = {f"block {k}": own[k] for k in blocks}
    if with_rest and method.net is not None:
        named["rest"] = _Rest(rest_of(method.net))
    return named


class _Rest(nn.Module):
    def __init__(self, parameters: list[nn.Parameter]) -> None:
        super().__init__()
        self.of = nn.ParameterList(parameters)
