"""Accuracy, counted by hand."""

import pytest
import torch

from bench import Batch
from bench.measure.evaluation import Diverged, judge
from bench.nets.mlp import MLP
from bench.testing.subject import image_task

TASK = image_task("toy", 10, (1, 2, 2), 10, MLP)


def test_scores_that_are_no_numbers_are_divergence() -> None:
    batches = [Batch(torch.zeros(4, 1, 2, 2), torch.zeros(4, dtype=torch.int64))]
    with pytest.raises(Diverged, match="is not finite"):
        judge(lambda x: torch.full((4, 10), torch.inf), batches, TASK)


def test_accuracy_counts_every_image_once() -> None:
    y = torch.arange(10)
    batches = [Batch(torch.zeros(7, 1), y[:7]), Batch(torch.zeros(3, 1), y[7:])]
    always_2 = lambda x: torch.nn.functional.one_hot(torch.full((len(x),), 2), 10).float()  # noqa: E731
    assert judge(always_2, batches, TASK) == {"acc": 0.1}
