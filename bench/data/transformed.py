"""Training batches as a rule sees them: after the run's transforms."""

from collections.abc import Iterable, Sequence

import torch

from bench.api.kinds import Input, Output
from bench.api.task import Batch
from bench.api.transform import Transform


def made(transforms: Iterable[type[Transform]], given: Input, output: Output) -> list[Transform]:
    """Instances for a run, each for the labels that the one before it leaves."""
    found = []
    for transform in transforms:
        found.append(transform(given, output))
        output = transform.labels(output)
    return found


def transformed(batch: Batch, transforms: Sequence[Transform], draws: torch.Generator) -> Batch:
    """The batch after all of them, in their order."""
    for transform in transforms:
        batch = Batch(*transform(*batch, draws))
    return batch
