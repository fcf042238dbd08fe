"""Evaluation: the task's metrics over a split; and the training loss beside them."""

import math
from collections.abc import Callable, Iterable
from typing import ClassVar

import torch
from torch import Tensor

from bench.api.column import Column
from bench.api.instrument import Instrument
from bench.api.interface import check_output
from bench.api.task import Batch, Task
from bench.catalog.register import register


class Diverged(Exception):
    """A loss or a score is no longer a finite number."""


@register
class TrainingLoss(Instrument):
    """The loss that a run's last steps had. The metrics, which its evaluations give, declare columns of their own."""

    name = "training-loss"
    rank: ClassVar[int] = 10
    columns = (Column("train_loss", "training loss", "mean loss of that epoch's steps", better="lower"),)


def judge(predict: Callable[[Tensor], Tensor], batches: Iterable[Batch], task: Task) -> dict[str, float | None]:
    """The task's metrics over all batches, by key; None for a secondary one that these labels leave undefined.

    Raises: Diverged on outputs or a primary metric that are not finite, MethodError on what are no outputs of the task.
    """
    metrics, finite = [cls(task.output) for cls in task.metrics], []
    with torch.no_grad():
        for x, y in batches:
            out = predict(x)
            check_output(out, len(x), task.output)
            for metric in metrics:
                metric.add(out, y)
            finite.append(out.isfinite().all())
    if not torch.stack(finite).all():
        raise Diverged("what the method predicts is not finite")
    found: dict[str, float | None] = {}
    for metric in metrics:
        value = metric.value()
        found[metric.key] = value if math.isfinite(value) else None
        if not math.isfinite(value) and metric.key == task.primary.key:
            raise Diverged(f"the metric {metric.name} is {value}")
    return found
