"""What a data set is once it is in memory."""

from dataclasses import dataclass

from torch import Tensor

from bench.api.dataset import Split
from bench.api.kinds import Input, Output


@dataclass(frozen=True, eq=False)
class Dataset:
    """A checked data set with its fixed splits.

    Shape: mean and std (C,), of each channel or feature over the training split, empty for tokens (see
    `bench.data.standard`). Values are standardised, and output.scale and output.offset have the std and the mean of
    each. fingerprint is a sha256 over all six arrays as they were read, and over the kinds where arrays leave them
    open.
    """

    name: str
    input: Input
    output: Output
    train: Split
    val: Split
    test: Split
    mean: Tensor
    std: Tensor
    fingerprint: str

    @property
    def n_train(self) -> int:
        return len(self.train.y)

    @property
    def n_val(self) -> int:
        return len(self.val.y)
