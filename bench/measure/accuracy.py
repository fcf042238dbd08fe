"""Accuracy: on validation images while training goes on, on test images once, at the end."""

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
class Accuracy(Instrument):
    """What the evaluations of a run give, as fractions, and the loss of its last epoch."""

    name = "accuracy"
    rank: ClassVar[int] = 10
    columns = (
        Column(
            name="test_acc",
            title="test acc, %",
            what="accuracy on the test images, read once at the end; the mean over draws where inference draws noise",
            scale=100,
            decimals=2,
            better="higher",
            interval=True,
            shown="terminal",
        ),
        Column("test_acc_std", "spread of draws, %", "standard deviation over those draws", scale=100, decimals=2),
        Column(
            name="test_acc_noise_free",
            title="noise-free, %",
            what="test accuracy with every draw of inference at its mean",
            scale=100,
            decimals=2,
            better="higher",
            interval=True,
            shown="terminal",
            unless_equal="test_acc",
        ),
        Column(
            name="val_acc",
            title="validation acc, %",
            what="accuracy on the validation images after the last epoch; after the best under own convergence",
            scale=100,
            decimals=2,
            better="higher",
            interval=True,
        ),
        Column("train_loss", "training loss", "mean loss of that epoch's steps", better="lower"),
    )


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
