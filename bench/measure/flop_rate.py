"""How fast a run computes: its FLOPs over its training time, and beside what the machine can do."""

from collections.abc import Mapping
from typing import Any, ClassVar

from bench.api.column import Column, Value
from bench.api.instrument import Derived
from bench.catalog.register import register


@register
class FlopRate(Derived):
    """FLOPs of the whole training, and per second of it. A step costs the mean over those of all phases."""

    name = "flop-rate"
    rank: ClassVar[int] = 56
    columns = (
        Column(
            "train_flops", "GFLOP in all", "GFLOP per step times the training steps taken", scale=1e-9, better="lower"
        ),
        Column("flops_per_s", "GFLOP/s", "GFLOP per step times steps, over the training time", scale=1e-9, timed=True),
        Column(
            "peak_fraction", "of peak, %",
            "GFLOP/s reached in training steps, as a part of the highest rate of a large matrix product there",
            scale=100, shown="page", timed=True,
        ),
    )  # fmt: skip

    def derive(self, found: Mapping[str, Any]) -> Mapping[str, Value]:
        per_step, train_s, peak = (found.get(name) for name in ("flops_per_step", "train_s", "peak_flops_per_s"))
        total = None if per_step is None else per_step * found["steps"]
        rate = total / train_s if total is not None and train_s else None
        fraction = rate / peak if rate is not None and peak else None
        return {"train_flops": total, "flops_per_s": rate, "peak_fraction": fraction}
