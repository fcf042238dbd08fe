"""The only timed code of the suite: training steps, and the one context in which gauges are on."""

import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager

from torch import Tensor

from bench.api.instrument import Gauge
from bench.api.interface import check_metric, loss_of
from bench.api.task import Progress
from bench.measure.clock import synchronize
from bench.runner.state import Training


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
    batch_of, train_step = run.train.batch, run.method.train_step
    losses: Sequence[Tensor] = ()
    with measured(run.at_work):
        mark = clock.mark
        for step in range(first, first + steps):
            mark()
            batch = batch_of(order[step * size : (step + 1) * size])
            mark()
            metrics = train_step(batch, Progress(done + step, total, epoch))
            mark()
            del batch  # so that the next one is put together in memory that is still in the cache
            if losses:
                check_metric("loss", loss := metrics["loss"])
            else:
                losses = room_for(steps, loss := loss_of(metrics, run.device))
            losses[step - first].copy_(loss)
            if pause():
                break
    state.losses += losses[: step + 1 - first]
    state.step = step + 1
    clock.times.examples += (state.step - first) * min(size, run.task.n_train)


def room_for(steps: int, loss: Tensor) -> Sequence[Tensor]:
    """Where losses are kept, side by side.

    The tensors of the steps themselves would lie strewn over the memory that steps use: it could no more be had in one
    piece, new pages were taken at each step, and small nets took 3 % longer.
    """
    return loss.new_empty(steps).unbind()


def prepare_for_eval(run: Training) -> float:
    """Let the method get ready to predict; the seconds that it took, which count as training."""
    with measured(run.at_work):
        began = time.perf_counter()
        run.method.prepare_for_eval()
        synchronize(run.device)
        return time.perf_counter() - began
