"""Checkpoints of a run: when one is due, what it holds, and how a run goes on from it."""

import time
from collections.abc import Mapping, Sequence
from dataclasses import fields, replace
from typing import Any

import torch

from bench.api.errors import is_out_of_memory
from bench.api.method import Method
from bench.record.checkpoint import damaged
from bench.record.folder import RunFolder
from bench.runner.state import State, Training

EVERY_S = 10.0
MOMENTS = frozenset(("exp_avg", "exp_avg_sq", "max_exp_avg_sq", "momentum_buffer", "square_avg"))  # of a weight's shape
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
        metrics = state.rule_metrics
        of_steps = {
            "losses": _stacked(state.losses),
            "rule_metrics": None if metrics is None else {name: _stacked(values) for name, values in metrics.items()},
        }
        self.folder.save_checkpoint(
            {
                "method": run.method.state_dict(),
                "seeds": run.seeds.state_dict(),
                "global_rng": torch.get_rng_state(),
                "cuda_rng": torch.cuda.get_rng_state(run.device) if run.device.type == "cuda" else None,
                "state": {of.name: getattr(state, of.name) for of in fields(state)} | of_steps,
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
    Raises: StoreError where the checkpoint is damaged or does not fit the run: no fault of the method.
    """
    kept = folder.load_checkpoint()
    if kept is None:
        return run
    try:
        return _restored(run, kept)
    except Exception as error:  # what a method, optimiser or gauge raises over a state that is not its own
        if is_out_of_memory(error):
            raise
        why = f"missing {error}" if isinstance(error, KeyError) else error
        raise damaged(folder.checkpoint, why) from error


def _restored(run: Training, kept: Mapping[str, Any]) -> Training:
    if any(gauge.name not in kept["gauges"] for gauge in run.gauges):
        return run
    if kept.get("micro_batches", 1) != run.micro_batches:
        return run
    state = _state(run, kept["state"])
    for name, own in run.method.state_dict().items():
        _check_alike(name, own, kept["method"][name])
    run.method.load_state_dict(kept["method"])
    _check_optimisers(run.method)
    run.seeds.load_state_dict(kept["seeds"])
    torch.set_rng_state(kept["global_rng"])
    if kept["cuda_rng"] is not None:
        torch.cuda.set_rng_state(kept["cuda_rng"], run.device)
    for gauge in run.gauges:
        gauge.load_state_dict(kept["gauges"][gauge.name])
    if kept.get("best") is not None:
        run.best.keep(kept["best"])
    return replace(run, state=state)


def _state(run: Training, kept: Mapping[str, Any]) -> State:
    """Raises: ValueError where it is no state of this run."""
    losses = kept["losses"]
    if not (isinstance(losses, torch.Tensor) and losses.ndim == 1 and len(losses) <= run.steps_per_epoch):
        raise ValueError("its losses are not those of an epoch")
    metrics = kept.get("rule_metrics")
    if metrics is not None:
        if not all(isinstance(of, torch.Tensor) and of.ndim == 1 and len(of) == len(losses) for of in metrics.values()):
            raise ValueError("its metrics are not those of its losses")
        metrics = {name: list(of.to(run.device).unbind()) for name, of in metrics.items()}
    state = State(**{**kept, "losses": list(losses.to(run.device).unbind()), "rule_metrics": metrics})
    steps = type(state.epoch) is type(state.step) is int and 0 <= state.step <= run.steps_per_epoch
    if not (steps and 0 <= state.epoch <= run.spec.epochs):
        raise ValueError(f"it stands at epoch {state.epoch}, step {state.step}")
    rows = [row for of in (state.curve, *state.tables.values()) for row in of]
    if not all(isinstance(row, dict) for row in rows) or not all(
        f"val_{run.task.primary.key}" in row for row in state.curve
    ):
        raise ValueError("its curve is none")
    if not isinstance(state.stopped_by, str | None):
        raise ValueError("what stopped it is no text")
    return state


def _stacked(values: Sequence[torch.Tensor]) -> torch.Tensor:
    return torch.stack(tuple(values)).cpu() if values else torch.empty(0)


def _check_alike(name: str, own: Any, kept: Any) -> None:
    """Tensors have the shapes of those that they replace. Raises: ValueError."""
    if isinstance(own, (list, tuple)):
        for k, (of_own, of_kept) in enumerate(zip(own, kept, strict=True)):
            _check_alike(f"{name}.{k}", of_own, of_kept)
    elif isinstance(own, torch.Tensor) and own.shape != kept.shape:
        raise ValueError(f"{name} has shape {tuple(kept.shape)}, not {tuple(own.shape)}")


def _check_optimisers(method: Method) -> None:
    """What torch loads without a look at shapes, and would fail over at the next step. Raises: ValueError."""
    held = [
        part for value in vars(method).values() for part in (value if isinstance(value, (list, tuple)) else [value])
    ]
    for optimiser in (part for part in held if isinstance(part, torch.optim.Optimizer)):
        for weight, of in optimiser.state.items():
            for name in MOMENTS & of.keys():
                if of[name] is not None and of[name].shape != weight.shape:
                    raise ValueError(f"{name} has shape {tuple(of[name].shape)}, not {tuple(weight.shape)}")
