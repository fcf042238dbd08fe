"""The only timed code of the suite: training steps, and the one context in which gauges are on."""

import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager

import torch
from torch import Tensor

from bench.api.instrument import Gauge
from bench.api.interface import check_all_metrics, check_metric, other_metrics
from bench.api.task import Progress
from bench.measure.clock import synchronize
from bench.runner.state import State, Training

LOSS = "loss"


@contextmanager
def measured(gauges: Sequence[Gauge]) -> Iterator[None]:
    """Around training steps and `prepare_for_eval`, and nothing else: what gauges read is what happens inside."""
    for gauge in gauges:
        gauge.on()
    try:
        yield
    finally:
        for gauge in reversed(gauges):
            gauge.off()


def train(run: Training, order: Tensor, steps: int, pause: Callable[[], bool]) -> None:
    """So many steps of the epoch from where the run stands, fewer where `pause` says so."""
    state, clock, size = run.state, run.clock, run.spec.batch_size
    first, epoch = state.step, state.epoch
    done, total = run.taken - first, run.total_steps
    batch_of, train_step = run.batch_of, run.method.train_step
    returned: Returned | None = None
    with measured(run.at_work):
        mark = clock.mark
        for step in range(first, first + steps):
            mark()
            batch = batch_of(order[step * size : (step + 1) * size])
            mark()
            metrics = train_step(batch, Progress(done + step, total, epoch))
            mark()
            del batch  # so that the next one is put together in memory that is still in the cache
            if returned is None:
                returned = Returned(metrics, steps, run.device, state.rule_metrics)
            returned.keep(metrics, step - first)
            if pause():
                break
    if returned is not None:
        returned.add_to(state, step + 1 - first)
    state.step = step + 1
    clock.times.examples += (state.step - first) * min(size, run.task.n_train)


class Returned:
    """What `train_step` returns, step by step: the loss and the rule's own metrics, on the device.

    Each metric has one piece of memory for all steps. Keeping the tensors of the steps instead fragments the allocator,
    which costs small nets 3 %.
    """

    def __init__(
        self, metrics: Mapping[str, Tensor], steps: int, device: torch.device, before: Mapping[str, object] | None
    ) -> None:
        """metrics: of the first step. before: those that earlier steps returned, without the loss; None: no step yet.

        Raises: MethodError where a metric breaks the interface.
        """
        check_all_metrics(metrics, device)
        self._names = set(metrics) if before is None else {LOSS, *before}
        self._kept = [(name, value.new_empty(steps).unbind()) for name, value in metrics.items()]

    def keep(self, metrics: Mapping[str, Tensor], k: int) -> None:
        """Copy those of step k. Raises: MethodError where they are not those of the steps before."""
        if not isinstance(metrics, Mapping) or metrics.keys() != self._names:
            raise other_metrics(metrics, self._names)
        for name, kept in self._kept:
            check_metric(name, value := metrics[name])
            kept[k].copy_(value)

    def add_to(self, state: State, steps: int) -> None:
        """Hand over what so many steps have returned."""
        kept = dict(self._kept)
        state.losses += kept.pop(LOSS)[:steps]
        state.rule_metrics = state.rule_metrics or {name: [] for name in kept}
        for name, values in kept.items():
            state.rule_metrics[name] += values[:steps]


def prepare_for_eval(run: Training) -> float:
    """Let the method get ready to predict; the seconds that it took, which count as training."""
    with measured(run.at_work):
        began = time.perf_counter()
        run.method.prepare_for_eval()
        synchronize(run.device)
        return time.perf_counter() - began
