"""Blocks trained by worker processes against the loop over blocks: the same numbers, and nothing left behind."""

import gc
from copy import deepcopy
from pathlib import Path
from typing import Any

import psutil
import pytest
import torch

from bench import Batch, Seeds, Task, compute
from bench.errors import ConfigError
from bench.measure import cpu_memory
from methods.noprop.dt import NoPropDT, NoPropDTSettings

SETTINGS = {"T": 3, "width": 4, "hidden": 16}


def make(execution: Any, **net: Any) -> NoPropDT:
    task = Task("toy", 10, (1, 8, 8), 100, "denoiser", {**SETTINGS, **net})
    config = NoPropDTSettings(execution=execution)
    return NoPropDT(task, config, device=torch.device("cpu"), seeds=Seeds(0))


def batches(n: int, size: int = 32) -> list[Batch]:
    generator = torch.Generator().manual_seed(1)
    return [Batch(torch.randn(size, 1, 8, 8, generator=generator), torch.arange(size) % 10) for _ in range(n)]


def same_parameters(one: NoPropDT, other: NoPropDT) -> None:
    expected, found = one.net.state_dict(), other.net.state_dict()
    assert [name for name in expected if not torch.equal(expected[name], found[name])] == []


def spawned() -> list[psutil.Process]:
    """The workers of this process; the tracker that Python starts beside them outlives them."""
    alive = [child for child in psutil.Process().children() if child.status() != psutil.STATUS_ZOMBIE]
    return [child for child in alive if any("spawn_main" in part for part in child.cmdline())]


def test_workers_do_what_the_loop_does_and_go_on_from_a_checkpoint(tmp_path: Path) -> None:
    """Bit for bit: losses, parameters, running statistics; and their memory is counted while they live."""
    torch.set_num_threads(2)  # as many workers
    try:
        loop, workers, resumed = make("loop"), make("processes"), make("processes")
    finally:
        torch.set_num_threads(1)
    alone = cpu_memory.resident()
    first, second = batches(2)
    assert torch.equal(loop.train_step(first, None)["loss"], workers.train_step(first, None)["loss"])
    children = spawned()
    assert alone is not None
    assert len(children) == 2
    assert (cpu_memory.resident() or 0) > alone + 50 * 2**20
    torch.save(workers.state_dict(), tmp_path / "checkpoint.pt")
    resumed.load_state_dict(torch.load(tmp_path / "checkpoint.pt", weights_only=True))
    for method in (loop, workers, resumed):
        method.train_step(second, None)
    for method in (workers, resumed):
        same_parameters(loop, method)
    del workers, resumed, method
    gc.collect()
    assert not any(child.is_running() for child in children)  # not for a moment: their memory would still be counted


def test_workers_start_when_told_to_in_the_format_of_that_moment_and_take_batches_of_any_size() -> None:
    """Also from a state that was there before them."""
    loop, workers, resumed = make("loop"), make("processes"), make("processes")
    first, second = batches(1)[0], batches(1, size=24)[0]
    for method in (loop, workers):
        method.train_step(first, None)
    resumed.load_state_dict(deepcopy(workers.state_dict()))
    compute.to_channels_last(resumed)
    del workers, method
    gc.collect()
    assert spawned() == []
    resumed.start()
    started = spawned()
    assert len(started) == 1
    for method in (loop, resumed):
        method.train_step(second, None)
    assert spawned() == started
    same_parameters(loop, resumed)


def test_workers_need_no_more_open_files_for_more_blocks() -> None:
    """A tensor of its own in shared memory costs a file descriptor: ten blocks have 500, and 1024 is a usual limit."""
    us, opened = psutil.Process(), []
    before = us.num_fds()
    for T in (2, 10):
        method = make("processes", T=T)
        method.train_step(batches(1)[0], None)
        states = [method.state_dict() for _ in range(2)]
        opened.append(us.num_fds() - before)
        del method, states
        gc.collect()
    assert max(opened) < 40


def test_workers_compute_in_the_precision_of_the_run() -> None:
    loop, workers, (batch,) = make("loop"), make("processes"), batches(1)
    with compute.precision("bfloat16", torch.device("cpu")):
        losses = [method.train_step(batch, None)["loss"] for method in (loop, workers)]
    assert torch.equal(*losses)
    assert not torch.equal(losses[0], make("loop").train_step(batch, None)["loss"])


def test_a_learned_embedding_is_refused() -> None:
    """Its gradient would have to pass between the processes."""
    with pytest.raises(ConfigError, match="needs a fixed embedding"):
        make("processes", embedding="learned")


def test_the_end_of_a_worker_is_told() -> None:
    method = make("processes")
    first, second = batches(2)
    method.train_step(first, None)
    for child in spawned():
        child.kill()
        child.wait()
    with pytest.raises((RuntimeError, BrokenPipeError), match=r"has ended|Broken pipe"):
        method.train_step(second, None)
