"""Sparse parity: whether an even or odd number of k fixed bits out of n are set. What is learnt is which ones matter.

Barak, Edelman, Goel, Kakade, Malach, Zhang 2022, "Hidden progress in deep learning: SGD learns parities near the
computational limit". x is uniform in {-1, 1}^n, y = 1 where the product of the k bits is positive, else 0. Which bits
they are is drawn once from (n, k); no set of fewer than k bits says anything about y.
"""

import re
from pathlib import Path

from bench.api.dataset import DataSet, DataSetInfo, Source, Split
from bench.api.errors import ConfigError
from bench.catalog.register import register

N_TRAIN, N_TEST = 10_000, 2_000
LARGEST = 1000  # bits


@register
class SparseParity(DataSet):
    """sparse-parity:n20-k5 has vectors of 20 bits, of which 5 decide."""

    info = DataSetInfo(
        name="sparse-parity",
        title="Parity of K hidden bits of N",
        n_classes=2,
        n_train=N_TRAIN,
        n_test=N_TEST,
        source="after Barak et al. 2022, NeurIPS",
        paper="barak2022hidden",
        size="generated",
        argument="nN-kK",
    )

    def __init__(self, argument: str = "") -> None:
        super().__init__(argument)
        found = re.fullmatch(r"n([0-9]{1,4})-k([0-9]{1,4})", argument)
        self.n, self.k = map(int, found.groups()) if found else (0, 0)
        if not 1 <= self.k <= self.n <= LARGEST:
            raise ConfigError(
                f"sparse-parity: write the bits and how many decide, K <= N <= {LARGEST}, as in sparse-parity:n20-k5"
            )

    def read(self, folder: Path) -> Source:
        import numpy as np
        import torch

        # RandomState, because its stream is frozen (NEP 19)
        draws = np.random.RandomState([self.n, self.k])
        places = draws.permutation(self.n)[: self.k]
        x = 2 * draws.randint(2, size=(N_TRAIN + N_TEST, self.n)) - 1
        y = x[:, places].prod(1) > 0
        every = Split(torch.from_numpy(x.astype(np.float32)), torch.from_numpy(y.astype(np.int64)))
        return Source(2, Split(*(t[:N_TRAIN] for t in every)), Split(*(t[N_TRAIN:] for t in every)))
