"""A method under examination: small nets, real digits, and the few moves that the runner makes with it."""

from collections.abc import Mapping
from dataclasses import dataclass, field
from functools import cache
from typing import Any

import torch
from torch import Tensor

from bench import data
from bench.api.instrument import FEW_IMAGES
from bench.api.kinds import Input, Output
from bench.api.method import ANY_NET, Method
from bench.api.net import Net, Prototypes
from bench.api.seeds import Seeds, derive
from bench.api.task import Batch, Progress, Task
from bench.data.digits import Digits
from bench.metrics.accuracy import Accuracy
from bench.nets.layers import lend_generator
from bench.objectives.cross_entropy import CrossEntropy

CPU = torch.device("cpu")
BATCH_SIZE = 32
STEPS_PER_PASS = 40  # whole batches of the digits


@cache
def digits() -> data.Dataset:
    return data.load(Digits())


def small_task(net: type[Net], settings: Mapping[str, Any] | None = None) -> Task:
    """The digits, to be learnt by a net small enough for tests."""
    loaded = digits()
    chosen = net.small if settings is None else settings
    objective = CrossEntropy(loaded.output)
    return Task(
        "digits", loaded.input, loaded.output, objective, len(loaded.train.y), net, chosen, _prototypes, (Accuracy,)
    )


def image_task(
    name: str,
    n_classes: int,
    shape: tuple[int, int, int],
    n_train: int,
    net: type[Net],
    net_settings: Mapping[str, Any] | None = None,
    prototypes: Prototypes | None = None,
    kind: type[Task] = Task,
) -> Task:
    """A made-up task of image classification. shape: (C, H, W)."""
    classes = Output.classes(n_classes)
    given = Input("image", shape)
    return kind(name, given, classes, CrossEntropy(classes), n_train, net, net_settings or {}, prototypes, (Accuracy,))


@cache
def _prototypes() -> Tensor:
    rows: Tensor = data.class_prototypes(digits())
    return rows


def nets_of(method: type[Method]) -> tuple[str, ...]:
    """The nets that a method names; the mlp where it runs on any."""
    return ("mlp",) if method.info.nets == ANY_NET else method.info.nets


@dataclass(frozen=True)
class Subject:
    """A method class with the task and the settings under which it is examined."""

    cls: type[Method]
    task: Task
    settings: Mapping[str, Any] = field(default_factory=dict)

    def start(self, seed: int = 0, steps: int = 100, steps_per_pass: int = STEPS_PER_PASS) -> "Trainee":
        """A fresh instance at the start of `steps` steps, made as the runner makes it."""
        seeds = Seeds(seed, CPU, method=self.cls.info.name)
        torch.manual_seed(derive(seed, "global"))
        method = self.cls(self.task, self.cls.Config(**self.settings), device=CPU, seeds=seeds)
        for part in method.modules().values():
            lend_generator(part, seeds.noise, idle_only=True)
        return Trainee(method, seeds, steps, steps_per_pass)


@dataclass
class Trainee:
    """An instance in training. Every trainee sees the same batches in the same order, so many to a pass."""

    method: Method
    seeds: Seeds
    total: int
    steps_per_pass: int = STEPS_PER_PASS
    done: int = 0

    def progress(self) -> Progress:
        """Where training stands, as the runner tells it."""
        return Progress(self.done, self.total, self.done // self.steps_per_pass)

    def step(self, batch: Batch | None = None) -> Mapping[str, Tensor]:
        """One training step on the given batch or on the next one of the digits."""
        batch, progress = batch or training_batch(self.done % STEPS_PER_PASS), self.progress()
        self.done += 1
        return self.method.train_step(batch, progress)

    def train(self, steps: int) -> list[Tensor]:
        """The losses of the next `steps` steps."""
        return [torch.as_tensor(self.step()["loss"]) for _ in range(steps)]

    def predict(self, x: Tensor, place: int = 0) -> Tensor:
        """Scores with the draws of inference at a named place."""
        self.method.prepare_for_eval()
        self.seeds.for_inference("check", place)
        return self.scores(x, self.seeds.inference)

    @torch.no_grad()
    def scores(self, x: Tensor, noise: torch.Generator | None) -> Tensor:
        """Scores as the runner asks for them: noise is for those alone that claim to draw."""
        stochastic = self.method.claims().stochastic_inference
        return self.method.predict(x, noise) if stochastic else self.method.predict(x)

    def state(self) -> dict[str, Any]:
        """What the runner keeps in a checkpoint."""
        return {
            "method": self.method.state_dict(),
            "seeds": self.seeds.state_dict(),
            "global_rng": torch.get_rng_state(),
            "done": self.done,
        }

    def resume(self, state: Mapping[str, Any]) -> None:
        self.method.load_state_dict(state["method"])
        self.seeds.load_state_dict(state["seeds"])
        torch.set_rng_state(state["global_rng"])
        self.done = state["done"]


@cache
def _batches() -> tuple[data.Batches, Tensor]:
    loaded = digits()
    batches = data.Batches(loaded.train, loaded.mean, loaded.std, CPU, BATCH_SIZE)
    return batches, batches.order(torch.Generator().manual_seed(0))


def training_batch(k: int) -> Batch:
    """The k-th mini-batch of the digits, in memory of its own."""
    batches, order = _batches()
    return batches.batch(order[k * BATCH_SIZE : (k + 1) * BATCH_SIZE])


def few_images() -> Batch:
    """As many as trials are given."""
    x, y = training_batch(0)
    return Batch(x[:FEW_IMAGES], y[:FEW_IMAGES])


def validation_batch() -> Batch:
    loaded = digits()
    whole = data.Batches(loaded.val, loaded.mean, loaded.std, CPU, len(loaded.val.y))
    return next(iter(whole))
