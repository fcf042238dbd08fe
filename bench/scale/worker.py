"""What one worker does: set up, warm up, some timed steps."""

import hashlib
import time
from collections.abc import Iterator
from typing import Any

import torch
from torch import nn

from bench import data
from bench.api.abilities import Parallel
from bench.api.method import Method
from bench.api.parallel import IndependentBlocks, WholeGradient
from bench.api.seeds import Seeds, derive
from bench.api.task import Batch, Progress, Task
from bench.data import Batches
from bench.measure.clock import synchronize
from bench.runner import compute, setup
from bench.runner.state import Place, seeds_of
from bench.scale.link import Link
from bench.scale.ways import Alone, ByBlocks, ByData, ByStages, Way
from bench.scale.work import Work


def train(work: Work, link: Link) -> dict[str, Any]:
    """Time some steps. cpu_s: of this process; digests: of the weights that it is to keep, by name."""
    if work.float64:
        torch.set_default_dtype(torch.float64)
    method, task, batches, seeds = made(work, link.device)
    way = _way(work, method, task, link)
    if work.workers > 1 and link.rank > 0 and work.way != "blocks":
        # what two workers drew alike would be one draw; blocks have generators of their own
        seeds.noise.manual_seed(derive(seeds.seed, "noise", "worker", link.rank))
    steps = progress_of(work, batches, seeds)
    with compute.precision(work.run.spec.precision, link.device):
        for _ in range(work.warm_up):
            way.step(*next(steps))
        synchronize(link.device)
        link.barrier()
        link.restart()
        began, cpu = time.perf_counter(), time.process_time()
        for _ in range(work.steps):
            way.step(*next(steps))
        synchronize(link.device)
        link.barrier()
    elapsed, cpu_s = time.perf_counter() - began, time.process_time() - cpu
    if work.keep is not None:
        kept = {name: module.state_dict() for name, module in way.owned.items()}
        torch.save(kept, work.keep / f"{link.rank}.pt")
    return {
        "elapsed_s": elapsed,
        "blocked_s": link.blocked_s,
        "sent_bytes": link.sent_bytes,
        "cpu_s": cpu_s,
        "digests": {name: digest(module) for name, module in way.owned.items()},
    }


def measure_link(work: Work, link: Link) -> dict[str, Any]:
    """Seconds that a message of no size takes between two workers, and bytes a second of a large one."""
    return {"latency_s": _trip(link, 1, 200), "bytes_per_s": 2**24 / _trip(link, 2**24, 10)}


def _trip(link: Link, size: int, times: int) -> float:
    message = torch.zeros(size, dtype=torch.uint8, device=link.device)
    for k in range(2 * times + 2):
        if k == 2:
            link.barrier()
            began = time.perf_counter()
        if k % 2 == link.rank:
            link.send(message, 1 - link.rank)
            link.flush()
        else:
            link.receive(message, 1 - link.rank)
    return (time.perf_counter() - began) / (2 * times)


def made(work: Work, device: torch.device) -> tuple[Method, Task, Batches, Seeds]:
    """The run's method as every worker has it at the start, and its data."""
    spec, parts = work.run.spec, work.run.load()
    loaded = setup.load(spec, parts, Place(device, work.data_dir))
    task = setup.task_of(spec, parts, loaded, device)
    seeds = seeds_of(spec, device)
    torch.manual_seed(derive(spec.seed, "global"))
    method = setup.instance(spec, parts, task, device, seeds)
    return method, task, data.Batches(loaded.train, loaded.mean, loaded.std, device, spec.batch_size), seeds


def progress_of(work: Work, batches: Batches, seeds: Seeds) -> Iterator[tuple[Batch, Progress]]:
    """The batches of a run, in its order, without end."""
    spec = work.run.spec
    size, total = spec.batch_size, work.warm_up + work.steps
    per_epoch, step = spec.steps_per_epoch(batches.n_examples), 0
    while True:
        epoch = step // per_epoch
        seeds.for_epoch(epoch)
        order = batches.order(seeds.order)
        for k in range(per_epoch):
            batch = batches.batch(order[k * size : (k + 1) * size])
            if work.float64:
                batch = Batch(batch.x.double(), batch.y)
            yield batch, Progress(step, total, epoch)
            step += 1


def digest(module: nn.Module) -> str:
    """Of all its parameters, to the last bit."""
    found = hashlib.sha256()
    for name, p in module.named_parameters():
        found.update(name.encode())
        found.update(p.detach().cpu().contiguous().numpy().tobytes())
    return found.hexdigest()


def _way(work: Work, method: Method, task: Task, link: Link) -> Way:
    if work.workers == 1:
        return Alone(method)
    plan = plan_of(method)
    if work.way == "blocks":
        assert isinstance(plan, IndependentBlocks)
        return ByBlocks(method, plan, link)
    assert isinstance(plan, WholeGradient)
    if work.way == "data":
        return ByData(method, plan, link)
    return ByStages(method, plan, link, work.n_micro, task.input.shape)


def plan_of(method: Method) -> IndependentBlocks | WholeGradient | None:
    """What the method's steps are made of; None for one that workers cannot share.

    Raises: ConfigError where they can, but not with these settings.
    """
    return method.parallel_plan() if isinstance(method, Parallel) else None
