"""Rates that follow from counts and times, and the machine's peak."""

from collections.abc import Mapping
from typing import Any

import pytest
import torch

from bench.measure import peak_flops
from bench.measure.flop_rate import FlopRate
from bench.measure.peak_flops import matmul_rate

CPU = torch.device("cpu")
FOUND = {"flops_per_step": 6e9, "steps": 50, "train_s": 20.0, "peak_flops_per_s": 60e9}


@pytest.mark.parametrize(
    ("lacking", "expected"),
    [
        ({}, (3e11, 1.5e10, 0.25)),
        ({"peak_flops_per_s": None}, (3e11, 1.5e10, None)),
        ({"flops_per_step": None}, (None, None, None)),
        ({"train_s": 0.0, "steps": 0}, (0, None, None)),
    ],
    ids=["all", "no-peak", "no-count", "no-step"],
)
def test_rates(lacking: Mapping[str, Any], expected: tuple[float | None, ...]) -> None:
    assert tuple(FlopRate().derive({**FOUND, **lacking}).values()) == expected


def test_a_run_that_compiles_has_no_count_and_no_rate() -> None:
    without = {name: value for name, value in FOUND.items() if name != "flops_per_step"}
    assert set(FlopRate().derive(without).values()) == {None}


def test_the_peak_is_the_best_product_of_the_size_that_takes_long_enough(monkeypatch: pytest.MonkeyPatch) -> None:
    """A machine of 1 GFLOP/ms and every other time of a tenth of that, made of a clock that products move."""
    now, sizes = [0.0], list[int]()

    def product(a: torch.Tensor, b: torch.Tensor) -> None:
        sizes.append(len(a))
        now[0] += 2 * len(a) ** 3 / (1e12 if len(sizes) % 2 else 1e11)

    monkeypatch.setattr(torch, "mm", product)
    monkeypatch.setattr(peak_flops.time, "perf_counter", lambda: now[0])
    assert matmul_rate(CPU) == pytest.approx(1e12)
    assert sizes[:3] == [256, 256, 512]
    assert max(sizes) == 1024  # which takes 2.1 ms, or twenty
    assert now[0] < 2 * peak_flops.BUDGET_S


def test_the_peak_is_sought_when_training_is_over(monkeypatch: pytest.MonkeyPatch) -> None:
    rates = iter([2e9])
    monkeypatch.setattr(peak_flops, "matmul_rate", lambda device: next(rates))
    gauge = peak_flops.PeakFlops(CPU)
    gauge.settle()
    gauge.on()
    gauge.off()
    assert gauge.read() == {"peak_flops_per_s": 2e9}  # so none was taken before


def test_a_finished_run_is_not_lost_where_no_memory_is_left_for_the_peak(monkeypatch: pytest.MonkeyPatch) -> None:
    """On a GPU and, as the allocator there says it, on the CPU."""

    def no_room_on_a_gpu(device: torch.device) -> float:
        raise torch.OutOfMemoryError("CUDA out of memory")

    def no_room_on_the_cpu(device: torch.device) -> float:
        return float(torch.empty(2**62, dtype=torch.uint8, device=device).sum())

    for refusal in (no_room_on_a_gpu, no_room_on_the_cpu):
        monkeypatch.setattr(peak_flops, "matmul_rate", refusal)
        assert peak_flops.PeakFlops(CPU).read() == {"peak_flops_per_s": None}


def test_another_failure_of_the_peak_is_told(monkeypatch: pytest.MonkeyPatch) -> None:
    def broken(device: torch.device) -> float:
        raise RuntimeError("an illegal memory access was encountered")

    monkeypatch.setattr(peak_flops, "matmul_rate", broken)
    with pytest.raises(RuntimeError, match="illegal"):
        peak_flops.PeakFlops(CPU).read()


def test_the_peak_is_of_the_precision_at_hand(monkeypatch: pytest.MonkeyPatch) -> None:
    seen = set()
    product = torch.mm
    monkeypatch.setattr(torch, "mm", lambda a, b: (seen.add(a.dtype), product(a, b))[1])
    monkeypatch.setattr(peak_flops, "LARGEST", 256)
    assert matmul_rate(CPU) > 0
    with torch.autocast("cpu", torch.bfloat16):
        matmul_rate(CPU)
    assert seen == {torch.float32, torch.bfloat16}
