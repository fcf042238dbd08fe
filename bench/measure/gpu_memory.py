"""Peak memory on the GPU, as torch's allocator and as the driver counts it, in bytes; None without a GPU."""

from collections.abc import Mapping
from typing import Any, ClassVar

import torch

from bench.api.column import Column, Value
from bench.api.instrument import Gauge
from bench.catalog.register import register
from bench.measure import nvml


@register
class GpuMemory(Gauge):
    """Peaks over training steps; cached blocks are given back before, so that those of an evaluation do not count.

    The driver keeps no peak. It is asked whenever steps end or pause: what the allocator took meanwhile it still has
    by then, unless memory ran short, so the most of these readings is the peak. Between steps nobody asks.
    """

    name = "gpu-memory"
    rank: ClassVar[int] = 30
    columns = (
        Column(
            "gpu_peak_alloc_bytes", "peak GPU, MiB",
            "most bytes that tensors held on the GPU at one time during training steps, data included",
            scale=2**-20, better="lower", shown="terminal",
        ),
        Column(
            "gpu_peak_reserved_bytes", "peak GPU reserved, MiB",
            "most bytes that torch's allocator had from the driver meanwhile, its cache included",
            scale=2**-20, better="lower",
        ),
        Column(
            "gpu_process_bytes", "GPU process, MiB",
            "most bytes that the driver accounted to the process whenever training steps ended or paused",
            scale=2**-20, better="lower",
        ),
    )  # fmt: skip

    def __init__(self, device: torch.device) -> None:
        super().__init__(device)
        self._peaks: dict[str, int] = {}

    @property
    def idle(self) -> bool:
        return self.device.type != "cuda"

    def on(self) -> None:
        torch.cuda.empty_cache()
        torch.cuda.reset_peak_memory_stats(self.device)

    def off(self) -> None:
        gpu = nvml.gpu(self.device)
        now = {
            "gpu_peak_alloc_bytes": torch.cuda.max_memory_allocated(self.device),
            "gpu_peak_reserved_bytes": torch.cuda.max_memory_reserved(self.device),
            "gpu_process_bytes": gpu.process_bytes() if gpu else None,
        }
        self._peaks |= {name: max(n, self._peaks.get(name, 0)) for name, n in now.items() if n is not None}

    def read(self) -> Mapping[str, Value]:
        return {column.name: self._peaks.get(column.name) for column in self.columns}

    def state_dict(self) -> dict[str, Any]:
        return dict(self._peaks)

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        self._peaks = dict(state)
