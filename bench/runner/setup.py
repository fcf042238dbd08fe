"""From a spec and its parts to a run that is set up, with all that is untimed before the first step."""

import contextlib
from collections.abc import Callable, Iterator
from dataclasses import replace
from functools import cache
from typing import Any, TypeVar

import torch

from bench import data
from bench.api.abilities import MicroBatched
from bench.api.errors import BenchError
from bench.api.instrument import FEW_IMAGES, Derived, EdgeProbe, EndProbe, Gauge, Instrument, Probe, Trial
from bench.api.method import Method
from bench.api.seeds import Seeds, derive
from bench.api.task import Task
from bench.data import Dataset, placing, transformed
from bench.experiment.identity import RunSpec
from bench.experiment.plan import Parts
from bench.measure.clock import Clock
from bench.measure.live_peak import alive
from bench.nets.layers import lend_generator
from bench.record import weights
from bench.runner import compute
from bench.runner.cost import Row
from bench.runner.evaluate import EVAL_BATCH
from bench.runner.probing import examined, refuse_lost_state, warm_up
from bench.runner.state import Place, Training, seeds_of

Kind = TypeVar("Kind", bound=Instrument)


class Uncuttable(BenchError):
    """A method cannot learn the same from batches in parts; the message is its reason."""


def load(spec: RunSpec, parts: Parts, place: Place) -> Dataset:
    return data.load(parts.dataset, data_dir=place.data_dir, download=place.download, val_fraction=spec.val_fraction)


def task_of(spec: RunSpec, parts: Parts, loaded: Dataset, device: torch.device) -> Task:
    of_classes = loaded.input.kind == "image" and loaded.output.kind == "classes"
    prototypes = cache(lambda: data.class_prototypes(loaded, device).cpu()) if of_classes else None
    return parts.task(spec, loaded, prototypes)


def set_up(
    spec: RunSpec,
    parts: Parts,
    task: Task,
    loaded: Dataset,
    device: torch.device,
    *,
    micro_batches: int = 1,
    keep_weights: bool = False,
) -> Training:
    """Everything made and warm; the method is untouched, for a throwaway twin of it has been warmed up and probed.

    micro_batches: parts into which each batch is cut. keep_weights: whether its state will be kept as weights.
    Raises: Uncuttable where the method cannot learn so; MethodError for a state that is none.
    """
    streamed = placing.on_host(loaded, device, spec.data_on)
    train, val, test = (
        data.Batches(split, loaded.mean, loaded.std, device, size, on_host=streamed)
        for split, size in ((loaded.train, spec.batch_size), (loaded.val, EVAL_BATCH), (loaded.test, EVAL_BATCH))
    )

    def build(seeds: Seeds, *, compiled: bool = spec.compile) -> Method:
        return instance(spec, parts, task, device, seeds, compiled=compiled, micro_batches=micro_batches)

    transforms = transformed.made(parts.transforms, loaded.input, loaded.output)
    few = train.batch(torch.arange(min(FEW_IMAGES, train.n_examples), device=device))
    few = transformed.transformed(few, transforms, seeds_of(spec, device).augment)
    small_task = replace(task, net_settings={**task.net_settings, **parts.net.small})

    def small() -> tuple[Method, Seeds]:
        """On a small net: what a rule does is the same there, and in whatever precision."""
        seeds = seeds_of(spec, device)
        return instance(spec, parts, small_task, device, seeds), seeds

    outside = list(alive())
    probes = [cls() for cls in _of(parts, Probe)]
    probes = [probe for probe in probes if not (spec.compile and probe.hooks)]
    cost = warm_up(
        lambda: build(seeds_of(spec, device), compiled=False), spec, task, device, probes, outside, micro_batches
    )
    if spec.compile:
        warm_up(lambda: build(seeds_of(spec, device)), spec, task, device, (), (), micro_batches)
    with _apart(device):
        refuse_lost_state(small, few)
        if keep_weights:
            weights.check(small()[0].state_dict())
    seeds = seeds_of(spec, device)
    torch.manual_seed(derive(spec.seed, "global"))
    method = build(seeds)
    if not method.claims().stochastic_inference:  # its draws are made batch by batch, and would be others
        val.batch_size = test.batch_size = max(1, EVAL_BATCH // micro_batches)
    gauges = sorted((cls(device) for cls in _of(parts, Gauge)), key=lambda gauge: isinstance(gauge, Clock))
    edge_probes, end_probes = [cls() for cls in _of(parts, EdgeProbe)], [cls() for cls in _of(parts, EndProbe)]
    derived = [cls() for cls in _of(parts, Derived)]
    trials = [cls() for cls in _of(parts, Trial)]

    def examine() -> Row:
        # a stranger's method may fail under a trial: nothing is said of it, and it is run all the same
        with contextlib.suppress(Exception), _apart(device):
            return examined(small, few, trials)
        return {}

    return Training(
        spec, task, device, train, val, test, method, seeds, gauges, edge_probes, end_probes, derived, build, cost,
        examine, transforms, micro_batches,
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
    for part in method.modules().values():
        lend_generator(part, seeds.noise, idle_only=True)
    if micro_batches > 1 and (reason := _use_micro_batches(method, micro_batches)) is not None:
        raise Uncuttable(reason)
    if spec.channels_last:
        compute.to_channels_last(method)
    if compiled:
        compute.compile_steps(method)
    return method


def _use_micro_batches(method: Method, parts: int) -> str | None:
    """None, or the reason why the method cannot learn from batches in parts."""
    if isinstance(method, MicroBatched):
        return method.use_micro_batches(parts)
    return f"{method.info.name} does not say how to learn the same from a batch in parts"


@contextlib.contextmanager
def _apart(device: torch.device) -> Iterator[None]:
    """Inside: float32, and draws that leave the global generators as they are."""
    with (
        torch.random.fork_rng([device] if device.type == "cuda" else []),  # test images are still to be looked at
        compute.precision("float32", device),
        torch.autocast(device.type, enabled=False),
    ):
        yield


def _of(parts: Parts, kind: Callable[..., Kind]) -> list[Callable[..., Kind]]:
    """The instruments of one pass. They are called for instances; as `type[Kind]` mypy would have them concrete."""
    found: list[Any] = [cls for cls in parts.instruments if isinstance(kind, type) and issubclass(cls, kind)]
    return found
