"""A split held as its files give it, on the device or the host, fed in standardised mini-batches."""

from collections.abc import Iterator

import torch
from torch import Tensor

from bench.api.dataset import Split
from bench.api.task import Batch
from bench.data.standard import Standard


class Batches:
    """The whole split on the device; a batch is gathered by index and standardised there.

    on_host: the split stays on the host, for it does not fit the device: a batch is gathered into pinned memory and
    copied without waiting. What batches hold is the same.

    Iterating gives the split in its own order, the last partial batch included: for evaluation. To train, cut
    an `order` into pieces and ask for each.

    Shape: mean and std (C,), as `bench.data.standard.statistics` gives them.
    """

    def __init__(
        self,
        split: Split,
        mean: Tensor,
        std: Tensor,
        device: torch.device | str,
        batch_size: int,
        *,
        on_host: bool = False,
    ) -> None:
        self.batch_size = batch_size
        self.device = torch.device(device)
        self.on_host = on_host
        self.held = torch.device("cpu") if on_host else self.device  # where the split is
        self._gather = self._streamed if on_host else _selected
        self._x = split.x.to(self.held)
        self._y = split.y.to(self.held)
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
            yield self.batch(torch.arange(start, stop, device=self.held))

    def order(self, generator: torch.Generator) -> Tensor:
        """A random order of the examples, drawn on the CPU so that every device sees the same.

        Shape: (N,) int64, where the split is.
        """
        return torch.randperm(self.n_examples, generator=generator).to(self.held)

    def batch(self, index: Tensor) -> Batch:
        """The examples at `index` in memory of their own, so that a method may keep or change them.

        Shape: index (B,) int64, best where the split is, to y (B, ...) and x (B, ...) float32, or int64 where these are
        tokens.
        """
        x = self._standard(self._gather(self._x, index))
        return Batch(x, self._gather(self._y, index))

    def _streamed(self, held: Tensor, index: Tensor) -> Tensor:
        """Rows of a tensor on the host, on the device. Pinned memory is not used again before its copy has ended."""
        pinned = self.device.type == "cuda"
        rows = torch.empty((len(index), *held.shape[1:]), dtype=held.dtype, pin_memory=pinned)
        torch.index_select(held, 0, index.to(self.held), out=rows)
        return rows.to(self.device, non_blocking=pinned)


def _selected(held: Tensor, index: Tensor) -> Tensor:
    return held.index_select(0, index)
