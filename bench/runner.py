"""One run in this process: set up, train, evaluate, record. Here is the only timed loop of the suite."""

import contextlib
import itertools
import statistics
import time
from collections.abc import Callable, Iterable, Iterator
from dataclasses import asdict, dataclass
from functools import cache
from itertools import islice
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from bench import compute, data
from bench.audit.alignment import Probe
from bench.measure import cpu_memory, gpu_memory
from bench.measure.clock import Times, marks, synchronize
from bench.measure.live_peak import alive, live_tensors
from bench.measure.retained import saved_for_backward
from bench.method import Batch, Method, Progress, Task
from bench.plan import RunSpec
from bench.seeding import Seeds, derive
from bench.status import Status
from bench.store import RunFolder

WARM_UP_STEPS = 2
EVAL_BATCH = 500
WAYS_BATCHES = 4  # of EVAL_BATCH images, on which accuracy by number of steps is measured
SHOWN_IMAGES = 6
CHECKPOINT_EVERY_S = 10.0
CHECKPOINT_SHARE = 0.03  # of the time of a run that saving may take


class Diverged(Exception):
    """A loss or a score is no longer a finite number."""


@dataclass(frozen=True)
class Place:
    """Where a run happens; none of it decides its numbers."""

    device: torch.device
    data_dir: Path | None = None
    download: bool = False


@dataclass
class Position:
    """How far training has come. A checkpoint may lie between any two steps."""

    epoch: int = 0
    step: int = 0  # within the epoch


class Run:
    """The state of one training run, from set-up to summary."""

    def __init__(
        self,
        spec: RunSpec,
        method: type[Method],
        place: Place,
        folder: RunFolder,
        tell: Callable[[dict[str, Any]], None],
    ) -> None:
        began = time.perf_counter()
        self.spec, self.folder, self.tell, self.device = spec, folder, tell, place.device
        self.stop_requested = False
        loaded = data.load(
            spec.dataset, data_dir=place.data_dir, download=place.download, val_fraction=spec.val_fraction
        )
        self.fingerprint = loaded.fingerprint
        self.train, self.val, self.test = (
            data.Batches(split, loaded.mean, loaded.std, place.device, size)
            for split, size in ((loaded.train, spec.batch_size), (loaded.val, EVAL_BATCH), (loaded.test, EVAL_BATCH))
        )
        self.task = Task(
            spec.dataset,
            loaded.n_classes,
            loaded.image_shape,
            len(loaded.train.y),
            spec.net,
            spec.net_settings,
            prototypes=cache(lambda: data.class_prototypes(loaded, place.device).cpu()),
        )
        self.unsupported = method.supports(self.task, place.device)
        if self.unsupported:
            return
        # a throwaway twin warms kernels and caches up, so that the real one starts untouched
        outside = list(alive())  # the data, and whatever else was there before
        self.probed = self._warm_up(self._build(method, self._seeds()), outside)
        self.seeds = self._seeds()
        torch.manual_seed(derive(spec.seed, "global"))
        self.method = self._build(method, self.seeds)
        self.times, self.at, self.curve = Times(), Position(), list[dict[str, Any]]()
        self.losses: list[Tensor] = []
        self.alignment: list[dict[str, Any]] = []
        self.cls = method
        self.peaks: dict[str, int | None] = dict.fromkeys(("cpu_rss", "gpu_alloc", "gpu_reserved"))
        self._resume()
        self.base_rss = cpu_memory.settle()
        self.method.start()
        self.saved_at, self.save_took_s = time.perf_counter(), 0.0
        self.times.setup_s += self.saved_at - began

    @property
    def steps_per_epoch(self) -> int:
        """Whole batches only, so that every step has one shape; the rest has its turn in another epoch's order."""
        return max(1, self.task.n_train // self.spec.batch_size)

    def go(self) -> dict[str, Any]:
        """Train to the end, or to a requested stop, and give the summary."""
        if self.unsupported:
            return self._closing("skipped", self.unsupported)
        try:
            with compute.precision(self.spec.precision, self.device):
                return self._go()
        except Diverged as reason:
            return self._closing("diverged", str(reason))

    def _go(self) -> dict[str, Any]:
        if self.at == Position():
            self._measure_alignment()
        while self.at.epoch < self.spec.epochs:
            if not self._train_epoch():
                return self._closing("interrupted", "stopped on request; the same command continues it")
            self._close_epoch()
        closing = self._closing("ok", None)
        if not self.spec.eval_draws:
            return closing
        scores = self._test_scores()
        self._exhibit()
        return {**closing, **scores}

    def _train_epoch(self) -> bool:
        """Train from the present step to the end of the epoch; False after a requested stop."""
        self.seeds.for_epoch(self.at.epoch)
        order = self.train.order(self.seeds.order)
        while self.at.step < self.steps_per_epoch:
            with self._training():
                self._train_until_due(order)
            if self.at.step < self.steps_per_epoch or self.stop_requested:
                self._check_losses()
                self._save()
                if self.stop_requested:
                    return False
                done = self.at.epoch * self.steps_per_epoch + self.at.step
                self.tell({"step": done, "steps": self.steps_per_epoch * self.spec.epochs})
        self.at = Position(self.at.epoch + 1, 0)
        return True

    @contextlib.contextmanager
    def _training(self) -> Iterator[None]:
        """Around training steps and `prepare_for_eval`, and nothing else: peaks are those of what happens inside."""
        cpu_memory.trim()
        gpu_memory.reset(self.device)
        try:
            yield
        finally:
            self._note_peaks()

    def _train_until_due(self, order: Tensor) -> None:
        """The timed loop: steps of this epoch until it ends, a save is due or a stop is requested."""
        steps, size = self.steps_per_epoch, self.spec.batch_size
        clock = marks(self.device)
        total = steps * self.spec.epochs
        synchronize(self.device)
        for step in range(self.at.step, steps):
            clock.mark()
            batch = self.train.batch(order[step * size : (step + 1) * size])
            clock.mark()
            done = self.at.epoch * steps + step
            progress = Progress(done, total, self.at.epoch, self.spec.epochs, self.at.epoch)
            metrics = self.method.train_step(batch, progress)
            clock.mark()
            self.losses.append(metrics["loss"])
            if self.stop_requested or self._save_is_due():
                break
        self.at.step = step + 1
        self._charge(clock.intervals())

    def _close_epoch(self) -> None:
        """Everything that happens between two epochs: evaluate, record, save."""
        with self._training():
            began = time.perf_counter()
            self.method.prepare_for_eval()
            synchronize(self.device)
            self.times.train_s += time.perf_counter() - began
        self._check_losses()
        began = time.perf_counter()
        scores = self._validate()
        self.times.eval_s += time.perf_counter() - began
        row = {
            "epoch": self.at.epoch,
            "step": self.at.epoch * self.steps_per_epoch,
            "train_loss": float(torch.stack(self.losses).mean()),
            **scores,
            "train_s": self.times.train_s,
            "data_s": self.times.data_s,
            "eval_s": self.times.eval_s,
        }
        self.losses = []
        self.curve.append(row)
        self.folder.write_curve(self.curve)
        self._measure_alignment()
        if self.stop_requested or self._save_is_due():
            self._save()
        self.tell({**row, "steps": self.steps_per_epoch * self.spec.epochs})

    def _measure_alignment(self) -> None:
        """The angle between update and gradient on the batch that comes next, untimed and without a trace."""
        if not self.spec.alignment:
            return
        steps, size = self.steps_per_epoch, self.spec.batch_size
        self.seeds.for_epoch(self.at.epoch)
        batch = self.train.batch(self.train.order(self.seeds.order)[:size])
        done, epochs = self.at.epoch * steps, self.spec.epochs
        epoch, total = min(self.at.epoch, epochs - 1), epochs * steps
        progress = Progress(min(done, total - 1), total, epoch, epochs, epoch)
        # made anew and let go each time, so that it is not there while training's memory is measured
        cosines = Probe(self._build(self.cls, self._seeds()), self.task).cosines(
            self.method.state_dict(), batch, progress
        )
        self.alignment += [
            {"epoch": self.at.epoch, "step": done, "layer": layer, "cosine": cosine}
            for layer, cosine in cosines.items()
        ]
        self.folder.write_alignment(self.alignment)

    def _validate(self) -> dict[str, float | None]:
        if not len(self.val):
            return {"val_acc": None, "val_acc_noise_free": None}
        self.seeds.for_inference("val", self.at.epoch)
        noisy = accuracy(self.method.predict, self.val)
        if not self.method.claims().stochastic_inference:
            return {"val_acc": noisy, "val_acc_noise_free": noisy}
        return {"val_acc": noisy, "val_acc_noise_free": accuracy(self.method.predict_noise_free, self.val)}

    def _test_scores(self) -> dict[str, float | None]:
        """The only look at the test split; a tuning trial, which has no draws, never takes it."""
        began = time.perf_counter()
        stochastic = self.method.claims().stochastic_inference
        draws = []
        for draw in range(self.spec.eval_draws if stochastic else 1):
            self.seeds.for_inference("test", draw)
            draws.append(accuracy(self.method.predict, self.test))
        free = accuracy(self.method.predict_noise_free, self.test) if stochastic else draws[0]
        self.times.eval_s += time.perf_counter() - began
        return {
            "test_acc": statistics.fmean(draws),
            "test_acc_std": statistics.stdev(draws) if len(draws) > 1 else None,
            "test_acc_noise_free": free,
            "eval_s": self.times.eval_s,
        }

    def _exhibit(self) -> None:
        """What the report may show of the trained method: accuracy by number of steps, and arrays for its pictures.

        On validation images, test images where there are none: at this point nothing is chosen any more.
        """
        split = self.val if len(self.val) else self.test
        images = Batch(*map(torch.cat, zip(*islice(split, WAYS_BATCHES), strict=True)))
        rows = []
        for k, (sampler, steps, predict) in enumerate(self.method.ways()):
            self.seeds.for_inference("ways", k)
            batches = zip(*(of.split(EVAL_BATCH) for of in images), strict=True)
            reached: float | None = None  # a sampler that fails in few steps is no failure of the run
            with contextlib.suppress(Diverged):
                reached = accuracy(predict, itertools.starmap(Batch, batches))
            rows.append({"sampler": sampler, "steps": steps, "accuracy": reached, "n_images": len(images.y)})
        if rows:
            self.folder.write_ways(rows)
        shown = Batch(*(of[:SHOWN_IMAGES] for of in images))
        self.seeds.for_inference("exhibits", 0)
        arrays = self.method.exhibits(shown.x)
        if arrays:
            arrays = {"images": shown.x, "labels": shown.y, **arrays}
            self.folder.write_exhibits({name: _array(tensor) for name, tensor in arrays.items()})

    def _closing(self, status: Status, reason: str | None) -> dict[str, Any]:
        """The part of the summary that every end shares."""
        if self.unsupported:
            return {"status": status, "reason": reason}
        steps_s = torch.tensor(self.times.steps_s, dtype=torch.float64)
        p50, p95 = (float(steps_s.quantile(q)) * 1000 if len(steps_s) else None for q in (0.5, 0.95))
        last = self.curve[-1] if self.curve else {}
        busy = self.times.train_s + self.times.data_s
        return {
            "status": status,
            "reason": reason,
            "val_acc": last.get("val_acc"),
            "train_loss": last.get("train_loss"),
            "steps": len(steps_s),
            **{k: v for k, v in asdict(self.times).items() if k != "steps_s"},
            "step_ms_p50": p50,
            "step_ms_p95": p95,
            "examples_per_s": len(steps_s) * min(self.spec.batch_size, self.task.n_train) / busy if busy else None,
            "cpu_peak_rss_bytes": self.peaks["cpu_rss"],
            "gpu_peak_alloc_bytes": self.peaks["gpu_alloc"],
            "gpu_peak_reserved_bytes": self.peaks["gpu_reserved"],
            **self.probed,
            "params_inference": self._parameters("inference"),
            "params_training_only": self._parameters("training_only"),
            "data_fingerprint": self.fingerprint,
        }

    def _parameters(self, role: Any) -> int:
        part = self.method.modules().get(role)
        return sum(p.numel() for p in part.parameters()) if part is not None else 0

    def _charge(self, intervals: list[float]) -> None:
        """Intervals run data, step, (bookkeeping, data, step) ...; bookkeeping is nobody's."""
        data_s, steps_s = intervals[0::3], intervals[1::3]
        self.times.data_s += sum(data_s)
        self.times.train_s += sum(steps_s)
        self.times.steps_s += steps_s

    def _check_losses(self) -> None:
        losses = torch.stack(self.losses)
        if not losses.isfinite().all():
            first = int((~losses.isfinite()).nonzero()[0])
            epoch = self.at.epoch + (self.at.step > 0)
            raise Diverged(f"the loss is {float(losses[first])} at step {first + 1} of epoch {epoch}")

    def _note_peaks(self) -> None:
        peak_rss = cpu_memory.peak()
        now = {
            "cpu_rss": peak_rss - self.base_rss if peak_rss is not None and self.base_rss is not None else None,
            "gpu_alloc": gpu_memory.peak_allocated(self.device),
            "gpu_reserved": gpu_memory.peak_reserved(self.device),
        }
        for name, value in now.items():
            if value is not None:
                self.peaks[name] = max(self.peaks[name] or 0, value)

    def _seeds(self) -> Seeds:
        return Seeds(self.spec.seed, self.device, method=self.spec.method)

    def _build(self, method: type[Method], seeds: Seeds) -> Method:
        built = method(self.task, method.Config(**self.spec.method_settings), device=self.device, seeds=seeds)
        if self.spec.channels_last:
            compute.to_channels_last(built)
        if self.spec.compile:
            built.compile()
        return built

    def _warm_up(self, twin: Method, outside: list[Tensor]) -> dict[str, int | None]:
        """Steps of a twin that is thrown away; the last one is looked at by the instruments that would slow a clock."""
        size = min(self.spec.batch_size, self.task.n_train)
        x = torch.randn(size, *self.task.image_shape, device=self.device)
        y = torch.arange(size, device=self.device) % self.task.n_classes
        with compute.precision(self.spec.precision, self.device):
            twin.train_step(Batch(x, y), Progress(0, WARM_UP_STEPS, 0, 1, 0))
            parameters = [p for part in twin.modules().values() for p in part.parameters()]
            with live_tensors(outside) as live, saved_for_backward(parameters) as saved:
                twin.train_step(Batch(x, y), Progress(1, WARM_UP_STEPS, 0, 1, 0))
            twin.prepare_for_eval()
            twin.predict(x)
        synchronize(self.device)
        return {"retained_bytes": saved(), "live_peak_bytes": live()}

    def _save_is_due(self) -> bool:
        """Whether so much time has passed since the last save that another one is worth what it takes."""
        return time.perf_counter() - self.saved_at > max(CHECKPOINT_EVERY_S, self.save_took_s / CHECKPOINT_SHARE)

    def _save(self) -> None:
        began = time.perf_counter()
        self.folder.save_checkpoint(
            {
                "method": self.method.state_dict(),
                "seeds": self.seeds.state_dict(),
                "global_rng": torch.get_rng_state(),
                "cuda_rng": torch.cuda.get_rng_state(self.device) if self.device.type == "cuda" else None,
                "at": asdict(self.at),
                "times": asdict(self.times),
                "losses": torch.stack(self.losses).cpu() if self.losses else torch.empty(0),
                "curve": self.curve,
                "alignment": self.alignment,
                "peaks": self.peaks,
            }
        )
        self.saved_at = time.perf_counter()
        self.save_took_s = self.saved_at - began

    def _resume(self) -> None:
        state = self.folder.load_checkpoint()
        if state is None:
            return
        self.method.load_state_dict(state["method"])
        self.seeds.load_state_dict(state["seeds"])
        torch.set_rng_state(state["global_rng"])
        if state["cuda_rng"] is not None:
            torch.cuda.set_rng_state(state["cuda_rng"], self.device)
        self.at, self.times = Position(**state["at"]), Times(**state["times"])
        self.losses = list(state["losses"].to(self.device).unbind())
        self.curve, self.alignment, self.peaks = state["curve"], state["alignment"], state["peaks"]


def _array(tensor: Tensor) -> np.ndarray:
    """numpy has no bfloat16."""
    tensor = tensor.detach().cpu()
    return np.asarray(tensor.float() if tensor.is_floating_point() else tensor)


def accuracy(predict: Callable[[Tensor], Tensor], batches: Iterable[Batch]) -> float:
    """Fraction of examples whose highest score is the label's. Raises: Diverged on scores that are not finite."""
    hits, count, finite = [], 0, []
    with torch.no_grad():
        for x, y in batches:
            scores = predict(x)
            hits.append((scores.argmax(dim=1) == y).sum())
            finite.append(scores.isfinite().all())
            count += len(y)
    if not torch.stack(finite).all():
        raise Diverged("the class scores are not finite")
    return float(torch.stack(hits).sum()) / count
