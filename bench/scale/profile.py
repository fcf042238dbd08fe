"""What one worker computes alone, part by part: what the model of more workers is fed with."""

import statistics
import time
from collections.abc import Callable, Sequence
from functools import partial
from typing import Any

import torch

from bench.api.method import Method
from bench.api.parallel import BlockStep, IndependentBlocks, WholeGradient
from bench.api.task import Batch
from bench.measure.clock import synchronize
from bench.runner import compute
from bench.scale.link import Link
from bench.scale.ways import hidden_shapes, rest_of
from bench.scale.work import Work
from bench.scale.worker import made, plan_of, progress_of

WARM_UP = 1


def profile(work: Work, link: Link) -> dict[str, Any]:
    """Seconds and bytes of a step's parts, medians over work.steps: what model.py's functions take as `of`."""
    method, task, batches, seeds = made(work, link.device)
    steps = progress_of(work, batches, seeds)
    with compute.precision(work.run.spec.precision, link.device):
        plan = plan_of(method)
        if isinstance(plan, IndependentBlocks):
            return _of_blocks(plan, [next(steps) for _ in range(WARM_UP + work.steps)], link.device)
        assert isinstance(plan, WholeGradient)
        data = [next(steps)[0] for _ in range(WARM_UP + work.steps)]
        return _of_parts(work, method, plan, data) | _of_stages(work, plan, data, task.input.shape)


def _of_blocks(blocks: IndependentBlocks, steps: Sequence[Any], device: torch.device) -> dict[str, Any]:
    took: list[list[float]] = [[] for _ in range(blocks.n_blocks)]
    shared: list[float] = []
    n_bytes = 0
    for batch, progress in steps:
        of_blocks: list[BlockStep] = []
        for k, seconds in enumerate(took):
            began = time.perf_counter()
            of_blocks += blocks.train([k], batch, progress)
            synchronize(device)
            seconds.append(time.perf_counter() - began)
        began = time.perf_counter()
        blocks.train_shared(batch, [step.shared for step in of_blocks])
        synchronize(device)
        shared.append(time.perf_counter() - began)
        n_bytes = sum(grad.nbytes for grad in of_blocks[0].shared)
    return {"block_s": [_median(seconds) for seconds in took], "shared_s": _median(shared), "shared_bytes": n_bytes}


def _of_parts(work: Work, method: Method, whole: WholeGradient, data: Sequence[Batch]) -> dict[str, Any]:
    """Whole steps on the parts of a batch that a worker may have."""
    optimizer = whole.optimizer(whole.net.parameters())
    found = {}

    def step(batch: Batch, size: int) -> None:
        whole.net.train()
        whole.loss(whole.net(batch.x[:size], whole.noise), batch.y[:size]).backward()
        optimizer.step()
        optimizer.zero_grad(set_to_none=True)

    for size in work.sizes:
        found[str(size)] = _median([_timed(partial(step, batch, size), batch.x.device) for batch in data])
    for batch in data[:1]:
        whole.loss(whole.net(batch.x, whole.noise), batch.y).backward()
    updates = [_timed(optimizer.step, batch.x.device) for batch in data]
    gradient_bytes = sum(p.nbytes for p in whole.net.parameters() if p.requires_grad)
    optimizer.zero_grad(set_to_none=True)
    return {"step_s": found, "update_s": _median(updates), "gradient_bytes": gradient_bytes}


def _of_stages(work: Work, whole: WholeGradient, data: Sequence[Batch], image_shape: tuple[int, ...]) -> dict[str, Any]:
    """Each block forward and back on one micro-batch; the loss is the last block's, what is before the first its."""
    net, n = whole.net, len(whole.net.blocks)
    forward: list[list[float]] = [[] for _ in range(n)]
    backward: list[list[float]] = [[] for _ in range(n)]
    shapes = hidden_shapes(net, data[0].x[:1])
    net.train()
    for batch in data:
        x, y = batch.x.chunk(work.n_micro)[0], batch.y.chunk(work.n_micro)[0]
        h = net.stem(x, whole.noise)
        for k in range(n):
            at = h.detach().requires_grad_()
            began = time.perf_counter()
            out = net.block(k, at, x)
            if k == n - 1:
                out = whole.loss(net.head(out), y)
            synchronize(x.device)
            between = time.perf_counter()
            torch.autograd.backward(out, torch.ones_like(out))
            synchronize(x.device)
            forward[k].append(between - began)
            backward[k].append(time.perf_counter() - between)
            h = out
        for p in net.parameters():
            p.grad = None
    itemsize = next(net.parameters()).element_size()
    return {
        "forward_s": [_median(seconds) for seconds in forward],
        "backward_s": [_median(seconds) for seconds in backward],
        "hidden_bytes": [itemsize * torch.Size(shape).numel() for shape in shapes],
        "rest_bytes": sum(p.nbytes for p in rest_of(net)),
    }


def _timed(act: Callable[[], object], device: torch.device) -> float:
    began = time.perf_counter()
    act()
    synchronize(device)
    return time.perf_counter() - began


def _median(seconds: Sequence[float]) -> float:
    return statistics.median(seconds[WARM_UP:])
