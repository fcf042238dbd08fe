"""From a spec and its parts to a run that is set up, with all that is untimed before the first step."""

import contextlib
from collections.abc import Callable, Sequence
from contextlib import AbstractContextManager
from dataclasses import replace
from functools import cache, partial
from typing import Any, TypeVar

import torch
from torch import Tensor

from bench import data
from bench.api.errors import BenchError
from bench.api.instrument import (
    FEW_IMAGES,
    FIRST_STEPS,
    Derived,
    EdgeProbe,
    EndProbe,
    Gauge,
    Instrument,
    Probe,
    Reading,
    Trial,
)
from bench.api.method import Method
from bench.api.seeds import Seeds, derive
from bench.api.task import Batch, Progress, Task
from bench.data import Batches, Dataset
from bench.measure.clock import Clock, synchronize
from bench.measure.live_peak import alive
from bench.runner import compute
from bench.runner.evaluate import EVAL_BATCH
from bench.runner.state import Place, Row, Training, seeds_of
from bench.spec.identity import RunSpec
from bench.spec.plan import Parts

TRIAL_STEPS = 100  # of the training that trials are at the start of, so that rules with stages are in their first

Kind = TypeVar("Kind", bound=Instrument)


class Uncuttable(BenchError):
    """A method cannot learn the same from batches in parts; the message is its reason."""


def load(spec: RunSpec, parts: Parts, place: Place) -> Dataset:
    return data.load(parts.dataset, data_dir=place.data_dir, download=place.download, val_fraction=spec.val_fraction)


def task_of(spec: RunSpec, parts: Parts, loaded: Dataset, device: torch.device) -> Task:
    return Task(
        spec.dataset,
        loaded.n_classes,
        loaded.image_shape,
        loaded.n_train,
        parts.net,
        spec.net_settings,
        prototypes=cache(lambda: data.class_prototypes(loaded, device).cpu()),
    )


def set_up(
    spec: RunSpec, parts: Parts, task: Task, loaded: Dataset, device: torch.device, *, micro_batches: int = 1
) -> Training:
    """Everything made and warm; the method is untouched, for a throwaway twin of it has been warmed up and probed.

    micro_batches: parts into which each batch is cut. Raises: Uncuttable where the method cannot learn so.
    """
    train, val, test = (
        data.Batches(split, loaded.mean, loaded.std, device, size)
        for split, size in ((loaded.train, spec.batch_size), (loaded.val, EVAL_BATCH), (loaded.test, EVAL_BATCH))
    )

    def build(seeds: Seeds, *, compiled: bool = spec.compile) -> Method:
        return instance(spec, parts, task, device, seeds, compiled=compiled, micro_batches=micro_batches)

    outside = list(alive())
    probes = [cls() for cls in _of(parts, Probe)]
    probes = [probe for probe in probes if not (spec.compile and probe.hooks)]
    twin = build(seeds_of(spec, device), compiled=False)
    probed = warm_up(twin, spec, task, device, probes, outside, micro_batches)
    if not twin.claims().stochastic_inference:  # its draws are made batch by batch, and would be others
        val.batch_size = test.batch_size = max(1, EVAL_BATCH // micro_batches)
    del twin
    if spec.compile:
        warm_up(build(seeds_of(spec, device)), spec, task, device, (), (), micro_batches)
    seeds = seeds_of(spec, device)
    torch.manual_seed(derive(spec.seed, "global"))
    method = build(seeds)
    gauges = sorted((cls(device) for cls in _of(parts, Gauge)), key=lambda gauge: isinstance(gauge, Clock))
    edge_probes, end_probes = [cls() for cls in _of(parts, EdgeProbe)], [cls() for cls in _of(parts, EndProbe)]
    derived = [cls() for cls in _of(parts, Derived)]
    examine = partial(examined, [cls() for cls in _of(parts, Trial)], spec, parts, task, train, device)
    return Training(
        spec, task, device, train, val, test, method, seeds, gauges, edge_probes, end_probes, derived, build, probed,
        examine, micro_batches,
    )  # fmt: skip


def instance(
    spec: RunSpec,
    parts: Parts,
    task: Task,
    device: torch.device,
    seeds: Seeds,
    *,
    compiled: bool = False,
    micro_batches: int = 1,
) -> Method:
    """A fresh instance of the run's method. Raises: Uncuttable."""
    method = parts.method(task, parts.method.Config(**spec.method_settings), device=device, seeds=seeds)
    if micro_batches > 1 and (reason := method.cut_batches(micro_batches)) is not None:
        raise Uncuttable(reason)
    if spec.channels_last:
        compute.to_channels_last(method)
    if compiled:
        method.compile()
    return method


def warm_up(
    twin: Method,
    spec: RunSpec,
    task: Task,
    device: torch.device,
    probes: Sequence[Probe],
    outside: Sequence[Tensor],
    micro_batches: int = 1,
) -> Row:
    """Steps of a twin that is thrown away: one to make kernels and caches ready, one under the eyes of all probes.

    Its prediction is of as many images as a step takes at once.
    """
    size = spec.batch_size if spec.probe_only else min(spec.batch_size, task.n_train)
    x = torch.randn(size, *task.image_shape, device=device)
    y = torch.arange(size, device=device) % task.n_classes
    seen = x[: -(-size // micro_batches)]

    def step(k: int) -> None:
        twin.train_step(Batch(x, y), Progress(k, 2, 0, 1, 0))

    def predict() -> None:
        with torch.no_grad():
            twin.predict(seen)

    step(0)
    row = _probed(probes, lambda probe: probe.watch(twin, outside), lambda: step(1))
    twin.prepare_for_eval()
    row |= _probed(probes, lambda probe: probe.watch_prediction(twin, seen), predict)
    synchronize(device)
    return row


def examined(
    trials: Sequence[Trial], spec: RunSpec, parts: Parts, task: Task, train: Batches, device: torch.device
) -> Row:
    """What trials find on a few training images, with an instance on a small net after its first steps.

    What a rule does is the same on a small net of the same kind, and in whatever precision.
    """
    small = replace(task, net_settings={**task.net_settings, **parts.net.small})
    few = train.batch(torch.arange(min(FEW_IMAGES, train.n_images), device=device))
    seeds, found = seeds_of(spec, device), Row()
    # a stranger's method may fail under a trial, or leave its state incomplete: nothing is said of it, and it is run
    with (
        contextlib.suppress(Exception),
        torch.random.fork_rng([device] if device.type == "cuda" else []),  # test images are still to be looked at
        compute.precision("float32", device),
        torch.autocast(device.type, enabled=False),
    ):
        twin = instance(spec, parts, small, device, seeds)
        for k in range(FIRST_STEPS):
            twin.train_step(few, Progress(k, TRIAL_STEPS, 0, 1, 0))
        for trial in trials:
            found |= trial.examine(twin, seeds, few, Progress(FIRST_STEPS, TRIAL_STEPS, 0, 1, 0))
    return found


def _probed(
    probes: Sequence[Probe], watch: Callable[[Probe], AbstractContextManager[Reading]], act: Callable[[], None]
) -> Row:
    """The readings of all probes in one act; in an act for each where they do not bear each other's company."""
    together: Row = {}
    try:
        with contextlib.ExitStack() as stack:
            readings = [stack.enter_context(watch(probe)) for probe in probes]
            act()
        for reading in readings:
            together |= reading()
        return together
    except RuntimeError:
        if len(probes) <= 1:  # torch.func's transforms allow no hooks on what is saved for backward, for one
            return {}
    return {name: value for probe in probes for name, value in _probed([probe], watch, act).items()}


def _of(parts: Parts, kind: Callable[..., Kind]) -> list[Callable[..., Kind]]:
    """The instruments of one pass. They are called for instances; as `type[Kind]` mypy would have them concrete."""
    found: list[Any] = [cls for cls in parts.instruments if isinstance(kind, type) and issubclass(cls, kind)]
    return found
