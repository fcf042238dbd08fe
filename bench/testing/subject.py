"""A method under examination: small nets, real digits, and the few moves that the runner makes with it."""

from collections.abc import Mapping
from dataclasses import dataclass, field
from functools import cache
from typing import Any

import torch
from torch import Tensor

from bench import data
from bench.method import ANY_NET, Batch, Method, Progress, Task
from bench.seeding import Seeds, derive

CPU = torch.device("cpu")
BATCH_SIZE = 32
SMALL_NETS: Mapping[str, Mapping[str, Any]] = {
    "cnn": {"width": 8},
    "denoiser": {"T": 3, "width": 4, "hidden": 32},
    "denoiser-ct": {"T": 5, "width": 4, "hidden": 32},
    "localmixer": {"depth": 2, "patches": 2, "channels": 32, "groups": 4},
    "mlp": {"width": 32},
}


@cache
def digits() -> data.Dataset:
    return data.load("digits")


def small_task(net: str, settings: Mapping[str, Any] | None = None) -> Task:
    """The digits, to be learnt by a net small enough for tests."""
    chosen = dict(SMALL_NETS.get(net, {}) if settings is None else settings)
    loaded = digits()
    return Task("digits", loaded.n_classes, loaded.image_shape, len(loaded.train.y), net, chosen, _prototypes)


@cache
def _prototypes() -> Tensor:
    rows: Tensor = data.class_prototypes(digits())
    return rows


def default_net(method: type[Method]) -> str:
    return "mlp" if method.info.nets == ANY_NET else method.info.nets[0]


@dataclass(frozen=True)
class Subject:
    """A method class with the task and the settings under which it is examined."""

    cls: type[Method]
    task: Task
    settings: Mapping[str, Any] = field(default_factory=dict)

    def start(self, seed: int = 0, steps: int = 100) -> "Trainee":
        """A fresh instance at the start of `steps` steps, made as the runner makes it."""
        seeds = Seeds(seed, CPU, method=self.cls.info.name)
        torch.manual_seed(derive(seed, "global"))
        method = self.cls(self.task, self.cls.Config(**self.settings), device=CPU, seeds=seeds)
        return Trainee(method, seeds, steps)


@dataclass
class Trainee:
    """An instance in training. Every trainee sees the same batches in the same order."""

    method: Method
    seeds: Seeds
    total: int
    done: int = 0

    def step(self, batch: Batch | None = None) -> Mapping[str, Tensor]:
        """One training step on the given batch or on the next one of the digits."""
        per_epoch = len(digits().train.y) // BATCH_SIZE
        epoch = self.done // per_epoch
        progress = Progress(self.done, self.total, epoch, -(-self.total // per_epoch), epoch)
        batch = batch or training_batch(self.done % per_epoch)
        self.done += 1
        return self.method.train_step(batch, progress)

    def train(self, steps: int) -> list[Tensor]:
        """The losses of the next `steps` steps."""
        return [self.step()["loss"] for _ in range(steps)]

    @torch.no_grad()
    def predict(self, x: Tensor, place: int = 0) -> Tensor:
        """Scores with the draws of inference at a named place."""
        self.method.prepare_for_eval()
        self.seeds.for_inference("check", place)
        return self.method.predict(x)

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


def validation_batch() -> Batch:
    loaded = digits()
    whole = data.Batches(loaded.val, loaded.mean, loaded.std, CPU, len(loaded.val.y))
    return next(iter(whole))
