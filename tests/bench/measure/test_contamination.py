"""Others' work beside a run: from a /proc that is made up, and once from a process that is really busy."""

import multiprocessing
import os
import subprocess
import sys
import time
from pathlib import Path
from types import SimpleNamespace

import pytest
import torch

from bench.measure import contamination, cpu_load, nvml
from bench.measure.contamination import BY_OTHERS, BY_SIBLINGS, OTHERS_ON_GPU, SIBLINGS_ON_GPU, Contamination

CPU, CUDA = torch.device("cpu"), torch.device("cuda", 0)
TICKS = os.sysconf("SC_CLK_TCK")
SERVER = os.getppid()


class Machine:
    """A machine of four cores, of which a run may use two, and its clock."""

    def __init__(self, proc: Path) -> None:
        self.proc, self.now, self.own_s = proc, 100.0, 0.0
        self.busy_s = [0.0, 0.0, 0.0, 0.0]
        self.siblings: dict[int, float] = {}
        self.ended_siblings_s = 0.0
        self.write()

    def write(self) -> None:
        # user nice system idle iowait irq softirq steal guest guest_nice
        lines = [
            f"cpu{k} {round(s * TICKS)} 0 0 {round(self.now * TICKS)} 77 0 0 0 55 0" for k, s in enumerate(self.busy_s)
        ]
        (self.proc / "stat").write_text("\n".join(["cpu 9 9 9 9 9 9 9 9 9 9", *lines, "intr 1 2 3"]))
        self.process(SERVER, ended=self.ended_siblings_s)
        for pid, seconds in self.siblings.items():
            self.process(pid, own=seconds)
        children = " ".join(map(str, [*self.siblings, os.getpid()]))
        (self.proc / str(SERVER) / "task" / str(SERVER)).mkdir(parents=True, exist_ok=True)
        (self.proc / str(SERVER) / "task" / str(SERVER) / "children").write_text(children)

    def process(self, pid: int, *, own: float = 0, ended: float = 0) -> None:
        (self.proc / str(pid)).mkdir(exist_ok=True)
        fields = ["S", *["1"] * 10, round(own * TICKS), 0, round(ended * TICKS), 0, *["0"] * 20]
        (self.proc / str(pid) / "stat").write_text(f"{pid} (a (b) c) {' '.join(map(str, fields))}")

    def go(self, seconds: float, *, own: float, others: float, cores: tuple[int, ...] = (0, 1)) -> None:
        """Time passes; this process uses so many cores, and others so many of `cores`."""
        self.now += seconds
        self.own_s += own * seconds
        for k in (0, 1):
            self.busy_s[k] += own * seconds / 2
        for k in cores:
            self.busy_s[k] += others * seconds / len(cores)
        self.write()


@pytest.fixture
def machine(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Machine:
    made = Machine(tmp_path)
    monkeypatch.setattr(cpu_load, "PROC", tmp_path)
    monkeypatch.setattr(cpu_load, "cores", lambda: frozenset({0, 1}))
    monkeypatch.setattr(cpu_load.os, "times", lambda: (made.own_s, 0.0, 0.0, 0.0, made.now))
    monkeypatch.setattr(cpu_load.time, "perf_counter", lambda: made.now)
    monkeypatch.setattr(torch, "get_num_threads", lambda: 2)
    return made


@pytest.fixture
def forked(monkeypatch: pytest.MonkeyPatch) -> None:
    """As in a run of the executor, which a server of multiprocessing has forked."""
    monkeypatch.setattr(multiprocessing, "parent_process", lambda: object())


def test_alone_on_the_machine(machine: Machine) -> None:
    gauge = Contamination(CPU)
    gauge.on()
    machine.go(10, own=2, others=0)
    gauge.off()
    assert gauge.read() == {"contamination": "", "other_load": 0}


def test_others_on_our_cores(machine: Machine) -> None:
    gauge = Contamination(CPU)
    gauge.on()
    machine.go(10, own=1.25, others=0.75)
    gauge.off()
    machine.go(10, own=0, others=2)  # while off
    assert gauge.read() == {"contamination": BY_OTHERS, "other_load": pytest.approx(0.75)}


def test_others_on_other_cores_disturb_nobody(machine: Machine) -> None:
    gauge = Contamination(CPU)
    gauge.on()
    machine.go(10, own=2, others=2, cores=(2, 3))
    gauge.off()
    assert gauge.read() == {"contamination": "", "other_load": 0}


@pytest.mark.parametrize(("threads", "others", "found"), [(1, 0.9, ""), (1, 1.2, BY_OTHERS), (2, 0.05, "")])
def test_what_is_free_may_be_used(
    machine: Machine, monkeypatch: pytest.MonkeyPatch, threads: int, others: float, found: str
) -> None:
    monkeypatch.setattr(torch, "get_num_threads", lambda: threads)
    gauge = Contamination(CPU)
    gauge.on()
    machine.go(10, own=0.8, others=others)
    gauge.off()
    assert gauge.read() == {"contamination": found, "other_load": pytest.approx(others)}


@pytest.mark.usefixtures("forked")
def test_runs_of_the_same_sweep_are_told_from_strangers(machine: Machine, monkeypatch: pytest.MonkeyPatch) -> None:
    """Also one that ends meanwhile, whose time the server takes over, and one that begins."""
    monkeypatch.setattr(torch, "get_num_threads", lambda: 1)
    machine.siblings = {7001: 500.0}
    machine.write()
    gauge = Contamination(CPU)
    gauge.on()
    machine.ended_siblings_s, machine.siblings = 506.0, {7002: 3.0}
    machine.go(10, own=1, others=0.9)
    gauge.off()
    assert gauge.read() == {"contamination": BY_SIBLINGS, "other_load": pytest.approx(0.9)}


@pytest.mark.usefixtures("forked")
def test_a_sweep_and_a_stranger_at_once(machine: Machine) -> None:
    gauge = Contamination(CPU)
    gauge.on()
    machine.siblings = {7001: 4.0}
    machine.go(10, own=1, others=0.9)
    gauge.off()
    assert gauge.read()["contamination"] == f"{BY_OTHERS}; {BY_SIBLINGS}"


def test_short_pieces_are_read_together(machine: Machine, monkeypatch: pytest.MonkeyPatch) -> None:
    """Epochs of 25 ms with their pauses: a reading at the start of a window of five seconds, one at its end."""
    readings = []
    load = cpu_load.load
    monkeypatch.setattr(cpu_load, "load", lambda: (readings.append(machine.now), load())[1])
    gauge = Contamination(CPU)
    for _ in range(303):
        gauge.on()
        machine.go(0.025, own=2, others=0)
        gauge.off()
        machine.go(0.025, own=1, others=1)
    assert gauge.read()["other_load"] == pytest.approx(0.5, rel=0.05)
    assert len(readings) == 6


def test_of_a_moment_nothing_is_said(machine: Machine) -> None:
    gauge = Contamination(CPU)
    gauge.on()
    machine.go(0.5, own=0, others=2)
    gauge.off()
    assert gauge.read() == {"contamination": None, "other_load": None}


def test_where_the_kernel_does_not_count_nothing_is_said(machine: Machine) -> None:
    (machine.proc / "stat").unlink()
    gauge = Contamination(CPU)
    gauge.on()
    gauge.off()
    assert gauge.read() == {"contamination": None, "other_load": None}


def test_what_went_before_an_interruption_counts(machine: Machine) -> None:
    before, after = Contamination(CPU), Contamination(CPU)
    before.on()
    machine.go(5, own=1, others=1)
    before.off()
    after.load_state_dict(before.state_dict())
    after.on()
    machine.go(15, own=2, others=0)
    after.off()
    assert after.read() == {"contamination": BY_OTHERS, "other_load": pytest.approx(0.25)}


@pytest.mark.usefixtures("forked")
@pytest.mark.parametrize(
    ("pids", "found"),
    [
        (["own"], []),
        (["own", 4001], [OTHERS_ON_GPU]),
        (["own", 7001], [SIBLINGS_ON_GPU]),
        (["own", 7001, 4001], [OTHERS_ON_GPU, SIBLINGS_ON_GPU]),
        ([31], []),
        ([31, 32], [OTHERS_ON_GPU]),
        ([], []),
        (None, []),
    ],
    ids=["alone", "stranger", "sibling", "both", "container", "container-stranger", "hidden", "unknown"],
)
def test_processes_on_the_gpu(
    machine: Machine, monkeypatch: pytest.MonkeyPatch, pids: list[str | int] | None, found: list[str]
) -> None:
    there = None if pids is None else [os.getpid() if pid == "own" else pid for pid in pids]
    monkeypatch.setattr(nvml, "gpu", lambda device: SimpleNamespace(processes=lambda: there))
    machine.siblings = {7001: 0.0}
    machine.write()
    gauge = Contamination(CUDA)
    gauge.on()
    machine.go(10, own=1, others=0)
    gauge.off()
    assert gauge.read()["contamination"] == "; ".join(found)


def test_a_process_that_is_really_busy_is_seen(monkeypatch: pytest.MonkeyPatch) -> None:
    """Beside a run that wants every core. Whatever else this machine does can only add to it."""
    monkeypatch.setattr(torch, "get_num_threads", lambda: len(cpu_load.cores()))
    beside = subprocess.Popen([sys.executable, "-c", "while True: pass"])
    try:
        gauge = Contamination(CPU)
        gauge.on()
        end = time.perf_counter() + contamination.LEAST_S
        while time.perf_counter() < end:
            pass
        gauge.off()
        found = gauge.read()
    finally:
        beside.kill()
        beside.wait()
    assert found["contamination"] == BY_OTHERS
    assert float(found["other_load"] or 0) > 0.2


def test_this_process_is_not_taken_for_another() -> None:
    """What this process burns is its own: the reading is not below zero and stands apart from its own seconds."""
    before = cpu_load.load()
    assert before is not None
    end = time.process_time() + 0.5
    while time.process_time() < end:
        pass
    after = cpu_load.load()
    assert after is not None
    spent = after.since(before)
    assert spent.own_s == pytest.approx(0.5, abs=0.05)
    assert spent.all_s >= spent.own_s - 0.05
