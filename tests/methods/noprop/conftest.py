"""What the tests of NoProp share: a task that a tiny net learns in a second, and a way to see gradients."""

from collections.abc import Callable

import pytest
import torch
from bench.methods.noprop.denoiser import Denoiser
from bench.methods.noprop.denoiser_ct import DenoiserCT
from torch import Tensor

from bench import Batch, Method, Task
from bench.testing.subject import image_task
from tests.methods.gradients import watched

NETS = {"denoiser": Denoiser, "denoiser-ct": DenoiserCT}


class Toy:
    """Ten random images of 8x8, a class each, under noise."""

    def __init__(self) -> None:
        self.noise = 1.0
        self.generator = torch.Generator().manual_seed(0)
        self.prototypes = torch.randn(10, 1, 8, 8, generator=self.generator)

    def task(self, net: str, **settings: object) -> Task:
        return image_task("toy", 10, (1, 8, 8), 320, NETS[net], {"width": 4, "hidden": 16, "dropout": 0.0, **settings})

    def batch(self, size: int = 320) -> Batch:
        y = torch.arange(size) % 10
        return Batch(self.prototypes[y] + self.noise * torch.randn(size, 1, 8, 8, generator=self.generator), y)

    def imageless_batch(self, size: int = 2000) -> Batch:
        """Images that show nothing of their labels."""
        return Batch(torch.randn(size, 1, 8, 8, generator=self.generator), torch.arange(size) % 10)

    def teach(self, method: Method, steps: int) -> None:
        for _ in range(steps):
            method.train_step(self.batch(), None)

    def accuracy(self, method: Method, batch: Batch) -> float:
        return float((method.predict(batch.x).argmax(1) == batch.y).float().mean())


@pytest.fixture
def toy() -> Toy:
    return Toy()


@pytest.fixture
def watch_gradients() -> Callable[..., dict[int, Tensor]]:
    """watch_gradients(optimizer, ...): a dictionary that at each step takes the gradients by id of parameter."""
    return lambda *optimizers: watched(optimizers)


@pytest.fixture
def doubles() -> object:
    """New nets and draws in float64, where two right computations agree to many digits."""
    torch.set_default_dtype(torch.float64)
    yield
    torch.set_default_dtype(torch.float32)


@pytest.fixture(autouse=True)
def _same_draws_each_time() -> None:
    torch.manual_seed(0)
