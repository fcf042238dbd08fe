"""Whether a learning rule learns: what is asked of it, with all of its parts, from nothing that it may not know."""

import torch
from torch import Tensor, nn

from bench.api.kinds import Output
from bench.api.method import Method
from bench.api.task import Batch
from bench.audit import live_memory
from bench.metrics.accuracy import Accuracy
from bench.testing.finding import ContractViolation, few, require
from bench.testing.subject import Subject, training_batch, validation_batch

LEARN_STEPS = 1600  # forty passes over the digits
LEARN_EVERY = 40
ABOVE_CHANCE = 0.15  # six standard errors on the validation split
MOVE_PASSES = 20
LEAK_BYTES = 2048  # per step; one kept batch is 8192
LEAK_TRIALS = 10  # the heaps of short-lived threads show 13 kB a step in one trial of three, a leak in all


def check_learns(subject: Subject) -> None:
    """Validation accuracy on the digits rises clearly above chance."""
    trainee, (x, y) = subject.start(steps=LEARN_STEPS), validation_batch()
    needed, best = 1 / subject.task.output.size + ABOVE_CHANCE, 0.0
    while best < needed and trainee.done < LEARN_STEPS:
        trainee.train(LEARN_EVERY)
        best = max(best, _accuracy(trainee.predict(x), y))
    require(best >= needed, f"reaches {best:.0%} on digits in {LEARN_STEPS} steps; {needed:.0%} is asked for")


def check_moves(subject: Subject) -> None:
    """Every parameter that serves inference moves within a training of a few steps, each a data pass of its own."""
    trainee = subject.start(steps=MOVE_PASSES, steps_per_pass=1)  # a rule may take its parts one a data pass
    before = _parameters(trainee.method)
    trainee.train(MOVE_PASSES)
    still = [name for name, p in _parameters(trainee.method).items() if torch.equal(p, before[name])]
    require(not still, f"{few(still)} never moves; leave it out of modules()['inference'] or train it")


def check_no_leak(subject: Subject) -> None:
    """After training on a batch, random images are not given the labels of that batch."""
    trainee = subject.start()
    x, y = training_batch(0)
    noise = torch.randn(5, *x.shape, generator=torch.Generator().manual_seed(0))
    # as many of each class, so that a constant answer is at chance exactly
    y = (torch.arange(len(y)) % subject.task.output.size)[
        torch.randperm(len(y), generator=torch.Generator().manual_seed(0))
    ]
    hits = []
    for images in noise:
        trainee.step(Batch(x.clone(), y.clone()))
        hits.append(_accuracy(trainee.predict(images), y))
    chance, found = 1 / subject.task.output.size, sum(hits) / len(hits)
    require(
        found < chance + ABOVE_CHANCE,
        f"guesses {found:.0%} of labels on random images; chance is {chance:.0%}",
    )


def check_memory(subject: Subject) -> None:
    """Memory in use does not grow from step to step."""
    trainee = subject.start()
    trainee.train(5)
    # a leak shows every time, the wandering of the allocator does not
    for _ in range(LEAK_TRIALS):
        growth = live_memory.growth(trainee.step)
        if growth < LEAK_BYTES:
            return
    raise ContractViolation(f"memory grows by {growth:,.0f} bytes per step; is a graph kept?")


def _parameters(method: Method) -> dict[str, Tensor]:
    part = method.modules().get("inference", nn.Module())
    return {name: p.detach().clone() for name, p in part.named_parameters() if p.requires_grad}


def _accuracy(scores: Tensor, y: Tensor) -> float:
    metric = Accuracy(Output.classes(scores.shape[1]))
    metric.add(scores, y)
    return metric.value()
