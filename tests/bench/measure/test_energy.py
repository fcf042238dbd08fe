"""Joules from counters that are made up: a tree as of /sys/class/powercap, and the driver's library."""

import sys
from collections.abc import Iterator
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import torch

from bench.measure import energy, nvml
from bench.measure.energy import Energy, EnergyPerExample

CPU, CUDA = torch.device("cpu"), torch.device("cuda", 0)
LAST = 262_143_328_850  # microjoules, as on many machines
NOTHING = {"gpu_energy_j": None, "cpu_energy_j": None}


class Zones:
    """Counters by zone, in microjoules."""

    def __init__(self, root: Path) -> None:
        self.root = root

    def add(self, zone: str, name: str, microjoules: int) -> None:
        (self.root / zone).mkdir()
        (self.root / zone / "name").write_text(f"{name}\n")
        (self.root / zone / "max_energy_range_uj").write_text(f"{LAST}\n")
        self.set(zone, microjoules)

    def set(self, zone: str, microjoules: int) -> None:
        (self.root / zone / "energy_uj").write_text(f"{microjoules}\n")


@pytest.fixture
def zones(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Zones:
    monkeypatch.setattr(energy, "POWERCAP", tmp_path)
    return Zones(tmp_path)


@pytest.fixture
def driver(monkeypatch: pytest.MonkeyPatch) -> Iterator[SimpleNamespace]:
    """The library pynvml with one GPU: its millijoules and its processes may be set."""

    class NVMLError(Exception):
        pass

    library = SimpleNamespace(NVMLError=NVMLError, millijoules=5_000_000, pids=[], opened=[])

    def counter(handle: str) -> int:
        if library.millijoules is None:
            raise NVMLError("not supported")
        return int(library.millijoules)

    library.nvmlInit = lambda: None
    library.nvmlDeviceGetHandleByUUID = lambda uuid: (library.opened.append(uuid), "handle")[1]
    library.nvmlDeviceGetTotalEnergyConsumption = counter
    library.nvmlDeviceGetComputeRunningProcesses = lambda handle: [SimpleNamespace(pid=pid) for pid in library.pids]
    monkeypatch.setitem(sys.modules, "pynvml", library)
    monkeypatch.setattr(torch.cuda, "get_device_properties", lambda device: SimpleNamespace(uuid="1234-abcd"))
    monkeypatch.setattr(torch.cuda, "synchronize", lambda device: None)
    nvml.gpu.cache_clear()
    yield library
    nvml.gpu.cache_clear()


def test_packages_alone_count_and_only_while_on(zones: Zones) -> None:
    zones.add("intel-rapl:0", "package-0", 1_000_000)
    zones.add("intel-rapl:1", "package-1", 7_000_000)
    zones.add("intel-rapl:0:0", "core", 500_000)
    zones.add("intel-rapl:2", "psys", 9_000_000)
    gauge = Energy(CPU)
    for on, off in [(2_000_000, 3_500_000), (90_000_000, 90_250_000)]:
        zones.set("intel-rapl:0", on)
        gauge.on()
        for zone in ("intel-rapl:0", "intel-rapl:0:0", "intel-rapl:2"):
            zones.set(zone, off)
        gauge.off()
    zones.set("intel-rapl:1", 80_000_000)  # while off
    assert gauge.read() == {"gpu_energy_j": None, "cpu_energy_j": 1.75}


def test_a_counter_that_begins_again_goes_on(zones: Zones) -> None:
    zones.add("intel-rapl:0", "package-0", LAST - 400_000)
    gauge = Energy(CPU)
    gauge.on()
    zones.set("intel-rapl:0", 600_000)
    gauge.off()
    assert gauge.read()["cpu_energy_j"] == pytest.approx(1.0)


def test_what_went_before_an_interruption_counts(zones: Zones) -> None:
    zones.add("intel-rapl:0", "package-0", 0)

    def spend(gauge: Energy, joules: int) -> Energy:
        zones.set("intel-rapl:0", 0)
        gauge.on()
        zones.set("intel-rapl:0", 1_000_000 * joules)
        gauge.off()
        return gauge

    resumed = Energy(CPU)
    resumed.load_state_dict(spend(Energy(CPU), 2).state_dict())
    assert spend(resumed, 3).read()["cpu_energy_j"] == 5


def test_where_one_package_cannot_be_read_there_is_no_figure(zones: Zones) -> None:
    zones.add("intel-rapl:0", "package-0", 0)
    zones.add("intel-rapl:1", "package-1", 0)
    (zones.root / "intel-rapl:1" / "energy_uj").unlink()
    assert measured(Energy(CPU)) == NOTHING


def test_where_there_is_no_counter_there_is_no_figure(zones: Zones) -> None:
    assert Energy(CPU).read() == measured(Energy(CPU)) == NOTHING


def test_a_counter_that_fails_once_leaves_no_figure(zones: Zones) -> None:
    zones.add("intel-rapl:0", "package-0", 0)
    gauge = Energy(CPU)
    gauge.on()
    (zones.root / "intel-rapl:0" / "energy_uj").unlink()
    gauge.off()
    zones.set("intel-rapl:0", 5)
    assert measured(gauge) == NOTHING


def test_the_gpu_s_own_counter(zones: Zones, driver: SimpleNamespace) -> None:
    gauge = Energy(CUDA)
    gauge.on()
    driver.millijoules += 12_500
    gauge.off()
    driver.millijoules += 99
    assert gauge.read() == {"gpu_energy_j": 12.5, "cpu_energy_j": None}
    assert driver.opened == ["GPU-1234-abcd"]


def test_a_run_on_the_cpu_has_no_gpu_s_joules(zones: Zones, driver: SimpleNamespace) -> None:
    assert measured(Energy(CPU)) == NOTHING


def test_a_gpu_that_does_not_count(zones: Zones, driver: SimpleNamespace) -> None:
    driver.millijoules = None
    assert measured(Energy(CUDA)) == NOTHING


def test_without_the_library_there_is_no_figure(
    zones: Zones, driver: SimpleNamespace, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(sys.modules, "pynvml", None)
    assert measured(Energy(CUDA)) == NOTHING


def test_joules_per_image() -> None:
    found = {"examples_per_s": 100.0, "train_s": 1.5, "data_s": 0.5, "gpu_energy_j": None, "cpu_energy_j": 50.0}
    derive = EnergyPerExample().derive
    assert derive(found) == {"gpu_j_per_example": None, "cpu_j_per_example": 0.25}
    none_yet = {**found, "examples_per_s": None}
    assert set(derive(none_yet).values()) == {None}


def measured(gauge: Energy) -> Any:
    gauge.on()
    gauge.off()
    return gauge.read()
