"""Small runs over worker processes, and the same training in this one."""

from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from bench.catalog.catalog import Catalog
from bench.command import prepare
from bench.experiment.config import resolve
from bench.experiment.plan import Run
from bench.record.scaling import WayName
from bench.runner.state import seeds_of
from bench.scale import worker
from bench.scale.group import run_group
from bench.scale.work import Work

STEPS, WARM_UP, BATCH, MICRO = 4, 2, 30, 4
SMALL = ["denoiser.T=3", "denoiser.width=4", "denoiser.hidden=32"]


def planned(method: str, *assignments: str, net: str = "auto") -> Run:
    """A run of the method. Of the assignments those count that are of it and its net."""
    on = {"auto": "denoiser"}.get(net, net)
    of_net = [text for text in (*SMALL, *assignments) if text.partition(".")[0] in (on, method)]
    asked = resolve(
        None,
        None,
        {"methods": method, "net": net, "batch_size": BATCH, "seeds": [0], "device": "cpu"},
        [f"{method}.lr=1e-3", *of_net],
    )
    (run,) = prepare(asked, Catalog(), data_dir=None, download=False)[0]
    return run


def work_of(run: Run, way: WayName, workers: int, **changes: Any) -> Work:
    return Work(run, way, workers, STEPS, WARM_UP, MICRO, "cpu", **changes)


def over_workers(work: Work, tmp_path: Path) -> tuple[list[dict[str, Any]], dict[str, Tensor]]:
    """What each worker tells, and the parameters after training, each from the worker that is to keep it."""
    results = run_group(worker.train, Work(**{**vars(work), "keep": tmp_path}), work.workers)
    assert results is not None
    weights = {}
    for rank in range(work.workers):
        for part, state in torch.load(tmp_path / f"{rank}.pt", weights_only=True).items():
            weights |= {f"{part} {name}": value for name, value in state.items()}
    return results, weights


def in_one_process(work: Work) -> dict[str, Tensor]:
    """The parameters after as many plain steps of the method."""
    torch.set_default_dtype(torch.float64 if work.float64 else torch.float32)
    try:
        method, _, batches, _ = worker.made(work, torch.device("cpu"))
        steps = worker.progress_of(work, batches, seeds_of(work.run.spec, torch.device("cpu")))
        for _ in range(work.warm_up + work.steps):
            method.train_step(*next(steps))
        assert method.net is not None
        named = {f"block {k} {n}": v for k, b in enumerate(method.blocks()) for n, v in b.state_dict().items()}
        rest = [p for n, p in method.net.named_parameters() if not n.startswith("blocks.")]
        return named | {f"rest of.{k}": p.detach() for k, p in enumerate(rest)}
    finally:
        torch.set_default_dtype(torch.float32)
