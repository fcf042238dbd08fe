"""What is read of a method between epochs and at the end: accuracies, angles and other looks, and its artifacts."""

import copy
import gc
import itertools
import statistics
from collections.abc import Callable, Iterable
from contextlib import suppress
from itertools import islice

import torch
from torch import Tensor

from bench.api.artifact import Artifact
from bench.api.column import Value
from bench.api.task import Batch
from bench.measure.evaluation import Diverged, judge
from bench.record.schema import FIRST_METRIC
from bench.runner.cost import Row
from bench.runner.state import Training

EVAL_BATCH = 500
HELD_OUT_BATCHES = 4  # of EVAL_BATCH images, for what is measured beside the accuracy of the run
END_IMAGES = 10_000  # training images at most that an end probe is shown
SHOWN_IMAGES = 6

Predict = Callable[[Tensor, torch.Generator | None], Tensor]


def validation(run: Training) -> Row:
    """The metrics of the validation split, the primary one also with every draw at its mean; None where it is empty."""
    primary = run.task.primary.key
    if not len(run.val):
        empty: Row = {f"val_{metric.key}": None for metric in run.task.metrics}
        return {**empty, f"val_{primary}_noise_free": None}
    run.seeds.for_inference("val", len(run.state.curve) + 1)
    noisy = judge(_predict(run), run.val, run.task)
    free = judge(run.method.predict, run.val, run.task) if is_stochastic(run) else noisy
    return {**{f"val_{key}": value for key, value in noisy.items()}, f"val_{primary}_noise_free": free[primary]}


def test(run: Training) -> Row:
    """The only look at the test split; a tuning trial, which has no draws, never takes it."""
    primary, draws = run.task.primary.key, []
    for draw in range(run.spec.eval_draws if is_stochastic(run) else 1):
        run.seeds.for_inference("test", draw)
        draws.append(judge(_predict(run), run.test, run.task))
    free = judge(run.method.predict, run.test, run.task) if is_stochastic(run) else draws[0]
    values = {key: [value for draw in draws if (value := draw[key]) is not None] for key in draws[0]}
    means: Row = {f"test_{key}": statistics.fmean(of) if len(of) == len(draws) else None for key, of in values.items()}
    spread = statistics.stdev(values[primary]) if len(draws) > 1 else None
    return {**means, f"test_{primary}_std": spread, f"test_{primary}_noise_free": free[primary]}


def looks(run: Training) -> dict[str, list[Row]]:
    """The rows of each edge probe at this edge between epochs, on the batch that comes next; without a trace."""
    at: dict[str, Value] = {"epoch": run.passes, "step": run.taken}
    progress = run.progress(min(run.taken, run.total_steps - 1))
    found = {}
    for probe in run.edge_probes:
        batch = run.next_batch()
        devices = [run.device] if run.device.type == "cuda" else []
        # made anew and let go each time, so that it is not there while training's memory is measured
        with torch.random.fork_rng(devices=devices):
            seeds = run.new_seeds()
            twin = run.build(seeds)
            twin.load_state_dict(copy.deepcopy(run.method.state_dict()))  # optimisers would share their tensors
            rows = probe.look(twin, run.task, seeds, batch, progress)
        del twin
        gc.collect()  # an instance may refer to itself in a circle
        found[probe.name] = [{**at, **row} for row in rows]
    return found


def by_steps(run: Training) -> list[Row]:
    """The primary metric by sampler and number of inference steps, on held-out images."""
    images = _held_out_images(run)
    rows: list[Row] = []
    for k, (sampler, steps, predict) in enumerate(run.method.ways()):
        run.seeds.for_inference("ways", k)
        batches = itertools.starmap(Batch, zip(*(of.split(EVAL_BATCH) for of in images), strict=True))
        reached: float | None = None  # a sampler that fails in few steps is no failure of the run
        with suppress(Diverged), run.method.evaluating():
            reached = judge(_drawing(predict, run), batches, run.task)[run.task.primary.key]
        name = "accuracy" if run.task.primary.key == FIRST_METRIC else run.task.primary.key
        rows.append({"sampler": sampler, "steps": steps, name: reached, "n_images": len(images.y)})
    return rows


def last_looks(run: Training) -> dict[str, list[Row]]:
    """The rows of each end probe."""
    if not run.end_probes:
        return {}
    n = run.train.n_examples
    apart = -(-n // END_IMAGES)  # spread over the whole split, which may be ordered
    train = run.train.batch(torch.arange(0, n, apart, device=run.device))
    held_out = _held_out_images(run)
    return {probe.name: [dict(row) for row in probe.look(run.method, train, held_out)] for probe in run.end_probes}


def artifacts(run: Training) -> list[Artifact]:
    """What the method leaves for pictures, of a few held-out images."""
    x, y = next(iter(_held_out(run)))
    run.seeds.for_inference("exhibits", 0)
    with run.method.evaluating():
        return list(run.method.artifacts(Batch(x[:SHOWN_IMAGES], y[:SHOWN_IMAGES]), run.seeds.inference))


def _held_out_images(run: Training) -> Batch:
    return Batch(*map(torch.cat, zip(*islice(_held_out(run), HELD_OUT_BATCHES), strict=True)))


def _held_out(run: Training) -> Iterable[Batch]:
    """Validation images, test images where there are none: where this is asked nothing is chosen any more."""
    return run.val if len(run.val) else run.test


def is_stochastic(run: Training) -> bool:
    """Whether predictions draw noise."""
    return run.method.claims().stochastic_inference


def _predict(run: Training) -> Callable[[Tensor], Tensor]:
    """Prediction with its draws, where there are any."""
    return _drawing(run.method.predict, run) if is_stochastic(run) else run.method.predict


def _drawing(predict: Predict, run: Training) -> Callable[[Tensor], Tensor]:
    return lambda x: predict(x, run.seeds.inference)
