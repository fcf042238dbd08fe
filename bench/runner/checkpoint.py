"""Checkpoints of a run: when one is due, what it holds, and how a run goes on from it."""

import time
from dataclasses import fields, replace

import torch

from bench.record.folder import RunFolder
from bench.runner.state import State, Training

EVERY_S = 10.0
SHARE = 0.03  # of the time of a run that saving may take


class Saver:
    """Writes checkpoints, by time: for short epochs saving each would take a third of the run."""

    def __init__(self, folder: RunFolder) -> None:
        self.folder = folder
        self.at, self.took_s = time.perf_counter(), 0.0

    def is_due(self) -> bool:
        """Whether so much time has passed since the last save that another one is worth what it takes."""
        return time.perf_counter() - self.at > max(EVERY_S, self.took_s / SHARE)

    def save(self, run: Training) -> None:
        began = time.perf_counter()
        state = run.state
        losses = torch.stack(state.losses).cpu() if state.losses else torch.empty(0)
        self.folder.save_checkpoint(
            {
                "method": run.method.state_dict(),
                "seeds": run.seeds.state_dict(),
                "global_rng": torch.get_rng_state(),
                "cuda_rng": torch.cuda.get_rng_state(run.device) if run.device.type == "cuda" else None,
                "state": {of.name: getattr(state, of.name) for of in fields(state)} | {"losses": losses},
                "best": run.best.state(),
                "micro_batches": run.micro_batches,
                "gauges": {gauge.name: gauge.state_dict() for gauge in run.gauges},
            }
        )
        self.at = time.perf_counter()
        self.took_s = self.at - began


def resumed(run: Training, folder: RunFolder) -> Training:
    """The run where its checkpoint left it; as it is where there is none, or one that lacks what a gauge has read.

    Nor does it go on from batches that were cut otherwise: a record is of steps that are all alike.
    """
    kept = folder.load_checkpoint()
    if kept is None or any(gauge.name not in kept["gauges"] for gauge in run.gauges):
        return run
    if kept.get("micro_batches", 1) != run.micro_batches:
        return run
    run.method.load_state_dict(kept["method"])
    run.seeds.load_state_dict(kept["seeds"])
    torch.set_rng_state(kept["global_rng"])
    if kept["cuda_rng"] is not None:
        torch.cuda.set_rng_state(kept["cuda_rng"], run.device)
    for gauge in run.gauges:
        gauge.load_state_dict(kept["gauges"][gauge.name])
    if kept.get("best") is not None:
        run.best.keep(kept["best"])
    losses = list(kept["state"]["losses"].to(run.device).unbind())
    return replace(run, state=State(**{**kept["state"], "losses": losses}))
