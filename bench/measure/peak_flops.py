"""What this machine can do: the highest rate of matrix products, as the run computes them."""

import time
from collections.abc import Mapping
from typing import ClassVar

import torch
from torch import Tensor

from bench.api.column import Column, Value
from bench.api.errors import is_out_of_memory
from bench.api.instrument import Gauge
from bench.catalog.register import register
from bench.measure.clock import synchronize

BUDGET_S, LEAST = 0.05, 5  # seconds, and products where they take longer
LONG_S = 2e-3  # a product that takes as long leaves its launch and its threads' meeting out of account
SMALLEST, LARGEST = 256, 8192  # rows; only what is fast comes to the largest, of which three have 800 MB in float32


@register
class PeakFlops(Gauge):
    """The best of square matrix products, in the run's process, threads and precision, once training is over.

    Not before it: the first step of a run would wait for it.
    """

    name = "peak-flops"
    rank: ClassVar[int] = 57
    columns = (
        Column(
            "peak_flops_per_s", "peak, GFLOP/s",
            "highest rate of a large matrix product on the run's device, in its threads and precision, after training",
            scale=1e-9,
        ),
    )  # fmt: skip

    @property
    def idle(self) -> bool:
        return True

    def on(self) -> None:
        pass

    def off(self) -> None:
        pass

    def read(self) -> Mapping[str, Value]:
        try:
            rate = matmul_rate(self.device)
        except (MemoryError, RuntimeError) as error:
            if not is_out_of_memory(error):
                raise
            rate = None  # of what the run has left there is no room for it
        return {"peak_flops_per_s": rate}


def matmul_rate(device: torch.device, budget_s: float = BUDGET_S) -> float:
    """2 n^3 over the least time of a product of n x n matrices, in FLOP/s, for the n at which it takes long enough.

    budget_s: seconds that it may try.
    """
    n, best, done = SMALLEST, 0.0, 0
    a, b = _matrices(n, device)
    torch.mm(a, b)  # the first one wakes threads and libraries
    deadline = time.perf_counter() + budget_s
    while done < LEAST or time.perf_counter() < deadline:
        synchronize(device)
        began = time.perf_counter()
        torch.mm(a, b)
        synchronize(device)
        took = time.perf_counter() - began
        best, done = max(best, 2 * n**3 / took), done + 1
        if took < LONG_S and n < LARGEST:
            n *= 2
            a, b = _matrices(n, device)
    return best


def _matrices(n: int, device: torch.device) -> Tensor:
    """Two of them, in the precision of products here; of many values, for zeros and ones make a GPU faster."""
    autocast = torch.is_autocast_enabled(device.type)
    dtype = torch.get_autocast_dtype(device.type) if autocast else torch.float32
    return torch.linspace(-1, 1, 2 * n * n, device=device).to(dtype).view(2, n, n)
