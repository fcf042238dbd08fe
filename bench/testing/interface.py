"""Whether a learning rule gives what the harness asks of it: settings, scores, metrics."""

import torch

from bench.api.errors import ConfigError
from bench.api.interface import check_all_metrics, check_output, other_metrics
from bench.api.task import Batch
from bench.experiment import ranges
from bench.testing.finding import ContractViolation, require
from bench.testing.subject import Subject, training_batch, validation_batch


def check_settings(subject: Subject) -> None:
    """Every setting has a default and a description, and where it is to be searched a range."""
    for name, field in subject.cls.Config.model_fields.items():
        require(not field.is_required(), f"setting '{name}' has no default")
        require(bool(field.description), f"setting '{name}' has no description")
    try:
        ranges.declared(subject.cls.info.name, subject.cls.Config)
    except ConfigError as error:
        raise ContractViolation(str(error)) from error


def check_scores(subject: Subject) -> None:
    """predict gives finite floating-point scores of shape (B, classes), for whatever B."""
    trainee = subject.start()
    trainee.train(2)
    x = validation_batch().x
    for size in (1, 7, 33):
        for name, noise in (("predict", None), ("predict with noise", trainee.seeds.inference)):
            scores = trainee.scores(x[:size], noise)
            check_output(scores, size, subject.task.output, name)
            require(bool(scores.isfinite().all()), f"{name} gives scores that are not finite")


def check_metrics(subject: Subject) -> None:
    """train_step returns detached 0-d tensors, `loss` among them, by the same names in every step."""
    trainee = subject.start()
    first = trainee.step()
    check_all_metrics(first)
    if (second := trainee.step()).keys() != first.keys():
        raise other_metrics(second, first)


def check_divergence(subject: Subject) -> None:
    """Images that are not numbers give a loss that is none either, which the runner reports as divergence."""
    trainee = subject.start()
    trainee.step()
    x, y = training_batch(0)
    loss = torch.as_tensor(trainee.step(Batch(torch.full_like(x, torch.nan), y))["loss"])
    require(not loss.isfinite(), f"the loss on NaN images is {float(loss):.3g}; a divergence would go unnoticed")
