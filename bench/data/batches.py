"""A split held on the device as uint8, fed in normalised mini-batches."""

from collections.abc import Iterator

import torch
from torch import Tensor

from bench.api.dataset import Split
from bench.api.task import Batch


class Batches:
    """The whole split on the device; a batch is gathered by index and normalised there.

    Iterating gives the split in its own order, the last partial batch included: for evaluation. To train, cut
    an `order` into pieces and ask for each.

    Shape: mean and std (C,), on the 0..1 scale.
    """

    def __init__(self, split: Split, mean: Tensor, std: Tensor, device: torch.device | str, batch_size: int) -> None:
        self.batch_size = batch_size
        self.device = torch.device(device)
        self._x = split.x.to(self.device)
        self._y = split.y.to(self.device)
        # (pixel / 255 - mean) / std as one multiplication and one addition, rounded to float32 at the end
        scale, shift = 1 / (255 * std.double()), -mean.double() / std.double()
        self._scale = scale.float().view(-1, 1, 1).to(self.device)
        self._shift = shift.float().view(-1, 1, 1).to(self.device)

    @property
    def n_images(self) -> int:
        return len(self._y)

    def __len__(self) -> int:
        """Batches in one pass."""
        return -(-self.n_images // self.batch_size)

    def __iter__(self) -> Iterator[Batch]:
        for start in range(0, self.n_images, self.batch_size):
            stop = min(start + self.batch_size, self.n_images)
            yield self.batch(torch.arange(start, stop, device=self.device))

    def order(self, generator: torch.Generator) -> Tensor:
        """A random order of the images, drawn on the CPU so that every device sees the same.

        Shape: (N,) int64, on the device.
        """
        return torch.randperm(self.n_images, generator=generator).to(self.device)

    def batch(self, index: Tensor) -> Batch:
        """The images at `index` in memory of their own, so that a method may keep or change them.

        Shape: index (B,) int64 on the device to x (B, C, H, W) float32 and y (B,).
        """
        x = self._x.index_select(0, index).float().mul_(self._scale).add_(self._shift)
        return Batch(x, self._y.index_select(0, index))
