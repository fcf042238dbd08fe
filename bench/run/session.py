"""One run in this process, from set-up to summary: what happens when, and what is written."""

import time
from typing import Any

import torch

from bench.api.status import Status
from bench.measure.accuracy import Diverged
from bench.record.folder import RunFolder
from bench.run import checkpoint, compute, evaluate, loop, setup
from bench.run.events import EpochEnded, Stepped, Tell
from bench.run.state import Place, Row, Training
from bench.spec.identity import RunSpec
from bench.spec.plan import Parts, refusal

STOPPED = "stopped on request; the same command continues it"


class Session:
    """A run that can be asked to stop: set `stop_requested`, from a signal handler say, and it saves and ends."""

    def __init__(self, spec: RunSpec, parts: Parts, place: Place, folder: RunFolder, tell: Tell) -> None:
        self.spec, self.parts, self.place, self.folder, self.tell = spec, parts, place, folder, tell
        self.stop_requested = False

    def go(self) -> dict[str, Any]:
        """Train to the end, or to a requested stop, and give the summary."""
        began = time.perf_counter()
        spec, parts, device = self.spec, self.parts, self.place.device
        loaded = setup.load(spec, parts, self.place)
        task = setup.task_of(spec, parts, loaded, device)
        reason = refusal(spec, parts, loaded)
        if reason is not None:
            return {"status": "skipped", "reason": reason}
        with compute.precision(spec.precision, device):
            run = checkpoint.resumed(setup.set_up(spec, parts, task, loaded, device), self.folder)
            run.clock.times.setup_s += time.perf_counter() - began
            return {**self.train(run), "data_fingerprint": loaded.fingerprint}

    def train(self, run: Training) -> dict[str, Any]:
        """From where the run stands to its end."""
        saver = checkpoint.Saver(self.folder)
        try:
            self._look(run, at_start=True)
            if self.spec.probe_only:
                return {"status": "ok", "reason": None, **run.probed}
            for gauge in run.gauges:
                gauge.settle()  # after what the first look has loaded, which is not training's
            while run.state.epoch < self.spec.epochs:
                if not self._train_epoch(run, saver):
                    return _closing(run, "interrupted", STOPPED)
                self._close_epoch(run, saver)
            closing = _closing(run, "ok", None)
            return {**closing, **self._last_look(run)} if self.spec.eval_draws else closing
        except Diverged as reason:
            return _closing(run, "diverged", str(reason))

    def _train_epoch(self, run: Training, saver: checkpoint.Saver) -> bool:
        """Train from the present step to the end of the epoch; False after a requested stop."""
        state, steps, order = run.state, run.steps_per_epoch, run.order()
        while state.step < steps:
            loop.train(run, order, lambda: self.stop_requested or saver.is_due())
            if state.step < steps or self.stop_requested:
                _check_losses(run)
                saver.save(run)
                if self.stop_requested:
                    return False
                self.tell(Stepped(state.epoch * steps + state.step, run.total_steps))
        state.epoch, state.step = state.epoch + 1, 0
        return True

    def _close_epoch(self, run: Training, saver: checkpoint.Saver) -> None:
        """Everything that happens between two epochs: evaluate, record, save."""
        state, times = run.state, run.clock.times
        times.train_s += loop.prepare_for_eval(run)
        _check_losses(run)
        began = time.perf_counter()
        scores = evaluate.validation(run)
        times.eval_s += time.perf_counter() - began
        row: Row = {
            "epoch": state.epoch,
            "step": state.epoch * run.steps_per_epoch,
            "train_loss": float(torch.stack(state.losses).mean()),
            **scores,
            "train_s": times.train_s,
            "data_s": times.data_s,
            "eval_s": times.eval_s,
        }
        state.losses.clear()
        state.curve.append(row)
        self.folder.write_curve(state.curve)
        self._look(run)
        if self.stop_requested or saver.is_due():
            saver.save(run)
        self.tell(EpochEnded(row, run.total_steps))

    def _look(self, run: Training, *, at_start: bool = False) -> None:
        """Let the edge probes look, if the run stands at an edge that they have not seen."""
        if at_start and (run.state.epoch, run.state.step) != (0, 0):
            return
        for probe, rows in zip(run.edge_probes, evaluate.looks(run).values(), strict=True):
            table = run.state.tables.setdefault(probe.name, [])
            table += rows
            self.folder.write_table(probe.name, ("epoch", "step", *probe.fields), table)

    def _last_look(self, run: Training) -> Row:
        """The test images, and what pictures need."""
        began = time.perf_counter()
        scores = evaluate.test(run)
        run.clock.times.eval_s += time.perf_counter() - began
        if rows := evaluate.by_steps(run):
            self.folder.write_table("ways", evaluate.WAYS_FIELDS, rows)
        if left := evaluate.artifacts(run):
            self.folder.write_artifacts(left)
        return {**scores, "eval_s": run.clock.times.eval_s}


def _closing(run: Training, status: Status, reason: str | None) -> dict[str, Any]:
    """The part of the summary that every end shares."""
    last = run.state.curve[-1] if run.state.curve else {}
    read = {name: value for gauge in run.gauges for name, value in gauge.read().items()}
    of_last = {name: last.get(name) for name in ("val_acc", "train_loss")}
    found = {**of_last, **read, **run.probed}
    derived = {name: value for instrument in run.derived for name, value in instrument.derive(found).items()}
    return {"status": status, "reason": reason, **found, **derived}


def _check_losses(run: Training) -> None:
    losses, state = torch.stack(run.state.losses), run.state
    if not losses.isfinite().all():
        first = int((~losses.isfinite()).nonzero()[0])
        epoch = state.epoch + (state.step > 0)
        raise Diverged(f"the loss is {float(losses[first])} at step {first + 1} of epoch {epoch}")
