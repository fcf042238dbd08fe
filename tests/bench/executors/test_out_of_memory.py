"""Out of memory: a failure unless asked otherwise; then the same training from parts of batches, and so recorded."""

import threading
from pathlib import Path
from typing import Any

import pytest

from bench.catalog.catalog import Catalog
from bench.data import load
from bench.executors.attempt import OnOOM, Terms
from bench.executors.executor import Options
from bench.executors.local import Local
from bench.experiment.config import Experiment
from bench.experiment.plan import Run, check, plan
from bench.record.folder import RunFolder
from bench.record.results import Results
from bench.record.schema import CUT
from bench.report.versus import versus_frame
from bench.runner.events import Ended, Event, Kept, Shrunk, Started

NARROW = """
import torch
from torch import nn
from bench import Net, register
from bench.nets.mlp import MLP, MLPSettings

@register
class Narrow(MLP):
    "An mlp for which there is not memory enough to train on many images at once."

    name = "narrow"

    def forward(self, x, noise=None):
        if self.training:
            {act}
        return super().forward(x, noise)
"""
FAKE = "if len(x) > {most}: raise torch.OutOfMemoryError('CUDA out of memory. Tried to allocate 2 GiB')"
FORGETFUL = """
import torch
from bench import Claims, Method, MethodInfo, register

@register
class Hungry(Method):
    info = MethodInfo(name="hungry", title="Hungry", family="toy", paper="", claims=Claims(reverse_mode="none"))

    def __init__(self, task, config, *, device, seeds):
        pass

    def train_step(self, batch, progress):
        raise MemoryError("DefaultCPUAllocator: can't allocate memory")

    def predict(self, x):
        return torch.zeros(len(x), 10)
"""


class Bench:
    """Runs backprop on a net that stands so many images at once, in a results folder of its own."""

    def __init__(self, tmp_path: Path, device: str = "cpu") -> None:
        self.tmp_path, self.device = tmp_path, device

    def plan(self, act: str, **changes: Any) -> list[Run]:
        plugin = self.tmp_path / "narrow.py"
        plugin.write_text(NARROW.format(act=act))
        (self.tmp_path / "hungry.py").write_text(FORGETFUL)
        asked = Experiment.model_validate({"methods": ["backprop"], "net": "narrow", "epochs": 2} | changes)
        self.catalog = Catalog([plugin, self.tmp_path / "hungry.py"])
        check(asked, self.catalog)
        data = {"digits": load(self.catalog.dataset("digits"))}
        return plan(asked, self.catalog, device=self.device, datasets=data)

    def go(
        self, runs: list[Run], on_oom: OnOOM = "shrink", root: str = "results"
    ) -> tuple[list[dict[str, Any]], list[Event]]:
        heard: list[Event] = []
        options = Options(self.tmp_path / root, "exp", self.device, terms=Terms(on_oom=on_oom))
        found = Local().run_all(runs, options, lambda _, event: heard.append(event), threading.Event())
        assert all(summary is not None for summary in found)
        return [dict(summary) for summary in found if summary is not None], heard

    def results(self, root: str = "results") -> Results:
        return Results(self.tmp_path / root, columns=self.catalog.columns(), lenient=False)

    def folder(self, run: Run) -> RunFolder:
        return RunFolder(self.tmp_path / "results", "exp", run.spec.run_id)


@pytest.fixture
def bench(tmp_path: Path) -> Bench:
    return Bench(tmp_path)


def test_batches_are_cut_until_they_fit_and_learn_what_whole_ones_do(bench: Bench) -> None:
    """128 images: 64 are too many, 32 are not. The rows are two in tables, and in a comparison of folders."""
    (cut,), heard = bench.go(bench.plan(FAKE.format(most=40)))
    assert (cut["status"], cut[CUT], cut["forward_passes"]) == ("ok", 4, 4)
    assert [event for event in heard if isinstance(event, Shrunk)] == [Shrunk(2), Shrunk(4)]
    assert [type(event) for event in heard if isinstance(event, (Started, Ended))] == [Started, Ended]
    (whole,), _ = bench.go(bench.plan(FAKE.format(most=1000)), root="whole")
    assert whole["status"] == "ok"
    assert whole.get(CUT) is None
    assert cut["train_loss"] == pytest.approx(whole["train_loss"], rel=1e-3)
    assert cut["test_acc"] == pytest.approx(whole["test_acc"], abs=0.01)
    assert cut["retained_bytes"] < whole["retained_bytes"] / 2

    assert bench.results().runs["variant"].tolist() == [f"{CUT}=4"]  # also where no other row stands beside it
    assert bench.results("whole").runs["variant"].tolist() == [""]
    cells = versus_frame(bench.results("whole"), bench.results())
    assert cells["variant"].tolist() == ["", f"{CUT}=4"]
    assert cells["n_pairs"].tolist() == [0, 0]


def test_it_is_a_failure_unless_asked_otherwise_and_then_tried_once(bench: Bench) -> None:
    runs = bench.plan(FAKE.format(most=64))
    (failed,), heard = bench.go(runs, "fail")
    assert (failed["status"], failed.get(CUT)) == ("oom", None)
    assert not any(isinstance(event, Shrunk) for event in heard)
    (tried,), _ = bench.go(runs)
    assert (tried["status"], tried[CUT]) == ("ok", 2)
    (kept,), heard = bench.go(runs, "fail")
    assert kept[CUT] == 2
    assert [type(event) for event in heard] == [Kept]


def test_cutting_has_an_end_and_the_sweep_goes_on(bench: Bench) -> None:
    runs = bench.plan(FAKE.format(most=0), batch_size=4, epochs=1, seeds=[0, 1])
    found, heard = bench.go(runs)
    assert [(summary["status"], summary[CUT]) for summary in found] == [("oom", 4)] * 2
    assert "Tried to allocate 2 GiB; batches are cut no further" in found[0]["reason"]
    assert sum(isinstance(event, Ended) for event in heard) == 2
    again, heard = bench.go(runs)
    assert [type(event) for event in heard] == [Kept, Kept]
    assert [summary["status"] for summary in again] == ["oom", "oom"]


def test_a_method_that_cannot_says_so_and_keeps_its_failure(bench: Bench) -> None:
    (run,) = bench.plan("pass", methods=["hungry"], net="mlp")
    (summary,), _ = bench.go([run])
    assert (summary["status"], summary.get(CUT)) == ("oom", None)
    assert summary["reason"].startswith("MemoryError: DefaultCPUAllocator: can't allocate memory; not in smaller parts")
    assert summary["reason"].endswith("hungry does not say how to learn the same from a batch in parts")
    assert "Traceback" in bench.folder(run).stderr.read_text()


def test_what_was_begun_in_parts_goes_on_in_them(bench: Bench) -> None:
    """As a kill leaves it: were it begun anew with whole batches, a record could be of steps of two kinds."""
    (run,) = bench.plan(FAKE.format(most=1000), epochs=1)
    folder = bench.folder(run)
    folder.path.mkdir(parents=True)
    folder.finish({"status": "interrupted", "reason": "begun again for want of memory", CUT: 2})
    (summary,), heard = bench.go([run], "fail")
    assert (summary["status"], summary[CUT], summary["forward_passes"]) == ("ok", 2, 2)
    assert not any(isinstance(event, Shrunk) for event in heard)


@pytest.mark.gpu
def test_the_memory_of_a_gpu_is_enough_for_parts(tmp_path: Path) -> None:
    """Really out of memory: 128 images want twice what there is, 32 a half."""
    bench = Bench(tmp_path, "cuda")
    a_64th = "torch.cuda.get_device_properties(0).total_memory // 64"
    act = f"torch.empty(len(x) * ({a_64th}), dtype=torch.uint8, device=x.device)"
    (summary,), _ = bench.go(bench.plan(act, epochs=1))
    assert (summary["status"], summary[CUT]) == ("ok", 4)
