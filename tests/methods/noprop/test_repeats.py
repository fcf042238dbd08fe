"""Runs repeat to the last bit on several threads, also where embeddings are as long as images."""

from collections.abc import Callable, Iterator

import pytest
import torch

from bench import Batch, Method
from bench.testing.subject import image_task
from tests.methods.noprop.conftest import NETS


@pytest.fixture
def two_threads() -> Iterator[None]:
    torch.set_num_threads(2)
    yield
    torch.set_num_threads(1)


@pytest.mark.parametrize(
    ("name", "net", "settings"),
    [
        ("noprop-dt", "denoiser", {"execution": "loop"}),
        ("noprop-ct", "denoiser-ct", {}),
        ("noprop-fm", "denoiser-ct", {}),
    ],
)
def test_long_embeddings_are_trained_alike_each_time(
    name: str, net: str, settings: dict[str, str], make_method: Callable[..., Method], two_threads: None
) -> None:
    """Rows of W_embed gather gradients of many examples at once: a sum whose order must not be left to the threads."""
    net_settings = {"T": 2, "width": 1, "hidden": 4, "embedding": "prototype", "start": "random"}
    task = image_task("toy", 10, (1, 28, 28), 128, NETS[net], net_settings)
    batch = Batch(torch.randn(128, 1, 28, 28), torch.randint(10, (128,)))
    one, again = (make_method(name, task=task, **settings) for _ in range(2))
    for _ in range(2):
        for method in (one, again):
            method.train_step(batch, None)
    assert torch.equal(one.net.labels.weight, again.net.labels.weight)
