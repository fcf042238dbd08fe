"""One run in this process, from set-up to summary: what happens when, and what is written."""

import time
from typing import Any

import torch

from bench.api.errors import DataError
from bench.api.status import Status
from bench.experiment.identity import RunSpec
from bench.experiment.plan import Parts, refusal
from bench.measure.evaluation import Diverged
from bench.record.folder import RunFolder
from bench.record.schema import CUT, RULE, WEIGHTS_SHA256
from bench.runner import budget, checkpoint, compute, evaluate, loop, setup
from bench.runner.cost import Row
from bench.runner.events import EpochEnded, Resumed, Stepped, Tell
from bench.runner.state import Place, Training

STOPPED = "stopped on request; the same command continues it"


class Session:
    """A run that can be asked to stop: set `stop_requested`, from a signal handler say, and it saves and ends.

    micro_batches: parts into which each batch is cut. keep_weights: whether to leave what was learnt, in the folder.
    """

    def __init__(
        self,
        spec: RunSpec,
        parts: Parts,
        place: Place,
        folder: RunFolder,
        tell: Tell,
        *,
        micro_batches: int = 1,
        keep_weights: bool = False,
    ) -> None:
        self.spec, self.parts, self.place, self.folder, self.tell = spec, parts, place, folder, tell
        self.micro_batches, self.keep_weights = micro_batches, keep_weights
        self.stop_requested = False

    def go(self) -> dict[str, Any]:
        """Train to the end, or to a requested stop, and give the summary.

        Raises: DataError, also where the data are no longer those that the run was planned with; StoreError;
        Uncuttable.
        """
        began = time.perf_counter()
        spec, parts, device = self.spec, self.parts, self.place.device
        loaded = setup.load(spec, parts, self.place)
        if loaded.fingerprint != spec.data_id:
            raise DataError(
                f"{spec.dataset}: the data have changed since the run was planned; run the same command again"
            )
        task = setup.task_of(spec, parts, loaded, device)
        reason = refusal(spec, parts, loaded)
        if reason is not None:
            return {"status": "skipped", "reason": reason}
        with compute.precision(spec.precision, device):
            made = setup.set_up(
                spec, parts, task, loaded, device, micro_batches=self.micro_batches, keep_weights=self.keep_weights
            )
            run = checkpoint.resumed(made, self.folder)
            if run.state.curve:
                self.tell(Resumed(list(run.state.curve)))
            if run.micro_batches > 1 and not run.taken:
                self.folder.write_curve([])  # in place of that of whole batches
            reason = budget.refusal(run)
            if reason is not None:
                return {"status": "skipped", "reason": reason}
            run.clock.times.setup_s += time.perf_counter() - began
            streamed = {"data_on": "host"} if run.train.on_host else {}
            return {**self.train(run), "data_fingerprint": loaded.fingerprint, **streamed}

    def train(self, run: Training) -> dict[str, Any]:
        """From where the run stands to its end."""
        saver = checkpoint.Saver(self.folder)
        try:
            self._look(run, at_start=True)
            if self.spec.probe_only:
                return {"status": "ok", "reason": None, **run.probed, **run.examine()}
            for gauge in run.gauges:
                gauge.settle()  # after what the first look has loaded, which is not training's
            while run.state.stopped_by is None:
                if not self._train_epoch(run, saver):
                    return _closing(run, "interrupted", STOPPED)
                self._close_epoch(run, saver)
            run.best.restore(run.method)
            closing = _closing(run, "ok", None)
            if self.keep_weights:
                closing[WEIGHTS_SHA256] = self.folder.write_weights(run.method.state_dict())
            return {**closing, **self._last_look(run)} if self.spec.eval_draws else closing
        except Diverged as reason:
            return _closing(run, "diverged", str(reason))

    def _train_epoch(self, run: Training, saver: checkpoint.Saver) -> bool:
        """Train from the present step to the end of the epoch, or of the budget; False after a requested stop."""
        order = run.order()
        while steps := budget.steps_ahead(run):
            loop.train(run, order, steps, lambda: self.stop_requested or saver.is_due())
            within = budget.steps_ahead(run) > 0
            if self.stop_requested or (within and saver.is_due()):
                _check_losses(run)
                saver.save(run)
            if self.stop_requested:
                return False
            if within:
                self.tell(Stepped(run.taken, run.total_steps, run.clock.times.train_s))
        return True

    def _close_epoch(self, run: Training, saver: checkpoint.Saver) -> None:
        """Everything that happens between two epochs, and after a part of one: evaluate, record, save."""
        state, times = run.state, run.clock.times
        if state.step == run.steps_per_epoch:
            state.epoch, state.step = state.epoch + 1, 0
        times.train_s += loop.prepare_for_eval(run)
        _check_losses(run)
        began = time.perf_counter()
        scores = evaluate.validation(run)
        times.eval_s += time.perf_counter() - began
        row: Row = {
            "epoch": run.passes,
            "step": run.taken,
            "train_loss": float(torch.stack(state.losses).mean()),
            **scores,
            "train_s": times.train_s,
            "data_s": times.data_s,
            "eval_s": times.eval_s,
            "train_flops": run.flops,
            **_rule_metrics(run),
        }
        state.losses.clear()
        for values in (state.rule_metrics or {}).values():
            values.clear()
        state.curve.append(row)
        self.folder.write_curve(state.curve)
        state.stopped_by = budget.stopped_by(run)
        if self.spec.patience is not None and budget.best_epoch(run) == len(state.curve):
            run.best.keep(run.method.state_dict())
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
            self.folder.write_table("ways", list(rows[0]), rows)
        for probe, rows in zip(run.end_probes, evaluate.last_looks(run).values(), strict=True):
            self.folder.write_table(probe.name, probe.fields, rows)
        if left := evaluate.artifacts(run):
            self.folder.write_artifacts(left)
        return {**scores, "eval_s": run.clock.times.eval_s}


def _closing(run: Training, status: Status, reason: str | None) -> dict[str, Any]:
    """The part of the summary that every end shares."""
    best = budget.best_epoch(run)
    shown = best if run.spec.patience is not None else len(run.state.curve)
    row = run.state.curve[shown - 1] if shown else {}
    read = {name: value for gauge in run.gauges for name, value in gauge.read().items()}
    of_row = {name: row.get(name) for name in (*(f"val_{metric.key}" for metric in run.task.metrics), "train_loss")}
    end = {"epochs_done": run.passes, "best_epoch": best, "stopped_by": run.state.stopped_by}
    cut = {CUT: run.micro_batches if run.micro_batches > 1 else None}
    tried = {} if status == "interrupted" else run.examine()
    found = {**of_row, **end, **cut, **read, **run.probed, **tried}
    derived = {name: value for instrument in run.derived for name, value in instrument.derive(found).items()}
    return {"status": status, "reason": reason, **found, **derived}


def _rule_metrics(run: Training) -> Row:
    """The rule's own metrics, each the mean over the steps of the epoch; None where some of these are not known."""
    losses, metrics = run.state.losses, run.state.rule_metrics or {}
    return {
        f"{RULE}{name}": float(torch.stack(values).mean()) if len(values) == len(losses) else None
        for name, values in metrics.items()
    }


def _check_losses(run: Training) -> None:
    losses, state = torch.stack(run.state.losses), run.state
    if not losses.isfinite().all():
        first = int((~losses.isfinite()).nonzero()[0])
        epoch = state.epoch + (state.step > 0)
        raise Diverged(f"the loss is {float(losses[first])} at step {first + 1} of epoch {epoch}")
