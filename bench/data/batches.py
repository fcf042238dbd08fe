"""A split held on the device as its files give it, fed in standardised mini-batches."""

from collections.abc import Iterator

import torch
from torch import Tensor

from bench.api.dataset import Split
from bench.api.task import Batch
from bench.data.standard import Standard


class Batches:
    """The whole split on the device; a batch is gathered by index and standardised there.

    Iterating gives the split in its own order, the last partial batch included: for evaluation. To train, cut
    an `order` into pieces and ask for each.

    Shape: mean and std (C,), as `bench.data.standard.statistics` gives them.
    """

    def __init__(self, split: Split, mean: Tensor, std: Tensor, device: torch.device | str, batch_size: int) -> None:
        self.batch_size = batch_size
        self.device = torch.device(device)
        self._x = split.x.to(self.device)
        self._y = split.y.to(self.device)
        self._standard = Standard(split.x, mean, std, self.device)

    @property
    def n_examples(self) -> int:
        return len(self._y)

    def __len__(self) -> int:
        """Batches in one pass."""
        return -(-self.n_examples // self.batch_size)

    def __iter__(self) -> Iterator[Batch]:
        for start in range(0, self.n_examples, self.batch_size):
            stop = min(start + self.batch_size, self.n_examples)
            yield self.batch(torch.arange(start, stop, device=self.device))

    def order(self, generator: torch.Generator) -> Tensor:
        """A random order of the examples, drawn on the CPU so that every device sees the same.

        Shape: (N,) int64, on the device.
        """
        return torch.randperm(self.n_examples, generator=generator).to(self.device)

    def batch(self, index: Tensor) -> Batch:
        """The examples at `index` in memory of their own, so that a method may keep or change them.

        Shape: index (B,) int64 on the device to x (B, ...) float32, or int64 where these are tokens, and y (B, ...).
        """
        x = self._standard(self._x.index_select(0, index))
        return Batch(x, self._y.index_select(0, index))
