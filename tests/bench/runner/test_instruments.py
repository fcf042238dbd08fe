"""Instruments in a run: what each adds to its record, and that none leaves a trace in its result."""

from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

import pandas as pd
import pytest
import torch
from torch import Tensor

from bench import Batch, Progress, Seeds
from bench.api.column import Column, Value
from bench.api.instrument import Gauge
from bench.api.task import Task
from bench.runner import checkpoint
from tests.bench.runner.made import (
    CATALOG,
    NETS,
    Hungry,
    Toy,
    least_peak,
    spec,
    start,
    tensors,
)


def test_every_declared_column_has_its_place_in_the_summary(tmp_path: Path) -> None:
    summary = start(tmp_path, spec())[0].go()
    expected = {column.name for column in CATALOG.columns() if column.metric in ("", "acc")}
    assert expected <= summary.keys()


def test_measuring_angles_leaves_no_trace(tmp_path: Path) -> None:
    """Backprop's own angle is 0 at every layer, and the run ends with the weights of one that was not looked at."""
    plain, watched = (start(tmp_path / str(len(asked)), spec(instruments=asked))[0] for asked in ((), ("alignment",)))
    plain.go()
    assert watched.go()["status"] == "ok"
    weights = zip(tensors(plain.run.method), tensors(watched.run.method), strict=True)
    assert all(torch.equal(a, b) for a, b in weights)
    rows = watched.run.state.tables["alignment"]
    assert [row["epoch"] for row in rows] == [0, 0, 1, 1, 2, 2]
    assert all(row["cosine"] == pytest.approx(1, abs=1e-6) for row in rows)


def test_who_depends_on_whom_is_a_table_where_asked_for(tmp_path: Path) -> None:
    session, _ = start(tmp_path, spec(epochs=1, instruments=("update-dependency",)))
    assert session.go()["status"] == "ok"
    table = pd.read_csv(session.folder.path / "update-dependency.csv")
    assert set(table["epoch"]) == {0, 1}
    assert (table["change"] > 0).all()  # of two blocks that backprop trains each depends on both


@pytest.mark.parametrize(
    ("name", "net", "settings", "waits", "transport", "passes"),
    [
        ("backprop", "mlp", {"depth": 2}, "later blocks", "yes", (1, 1)),
        ("drtp", "mlp", {"depth": 2}, "earlier blocks", "no", (1, 1)),
        ("spsa", "mlp", {"depth": 1}, "cannot tell", "no", (2, 1)),
        ("noprop-dt", "denoiser", {}, "nothing", "yes", (1, 1)),
        ("noprop-ct", "denoiser-ct", {}, None, "yes", (1, 3)),
    ],
)
def test_every_record_says_what_the_rule_does(
    tmp_path: Path, name: str, net: str, settings: Any, waits: str | None, transport: str, passes: tuple[int, int]
) -> None:
    session, _ = start(tmp_path, spec(name, net, probe_only=True, net_settings={**NETS[net], **settings}))
    found = session.go()
    assert (found["updates_wait_for"], found["weight_transport"]) == (waits, transport)
    assert (found["forward_passes"], found["inference_passes"]) == passes


def test_a_method_that_fails_under_a_trial_is_run_all_the_same(tmp_path: Path) -> None:
    class Forgetful(CATALOG.methods["backprop"].load()):  # type: ignore[misc]
        def load_state_dict(self, state: Mapping[str, Any]) -> Any:
            raise KeyError("no such state")

    found = start(tmp_path, spec(epochs=1), Forgetful)[0].go()
    assert found["status"] == "ok"
    assert found["reverse_mode"] == "network"
    assert "updates_wait_for" not in found
    assert "weight_transport" not in found


def test_warm_up_and_probes_leave_no_trace(tmp_path: Path) -> None:
    """The method starts from the weights that its seed names, though kernels were warmed up before."""
    start_weights: list[Tensor] = []
    session, _ = start(
        tmp_path, spec(), meddle=lambda session: start_weights.extend(t.clone() for t in tensors(session.run.method))
    )
    session.go()
    fresh = session.run.task.build_net(Seeds(0).init)
    assert all(torch.equal(a, b) for a, b in zip(fresh.parameters(), start_weights, strict=True))


@pytest.mark.parametrize("asked", [(), ("alignment",)], ids=["plain", "alignment"])
def test_peaks_are_those_of_training_steps_alone(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, asked: tuple[str, ...]
) -> None:
    """Neither what validation takes, be the run saved after it, nor a second instance that is put beside the first."""
    monkeypatch.setattr(checkpoint.Saver, "is_due", lambda self: True)
    net = {"width": 2048, "depth": 3, "activation": "relu"}  # the gradient of the angle alone is 33 MiB
    wanted = spec(method_settings={}, net_settings=net, instruments=asked)
    peak = least_peak(tmp_path, lambda folder: start(folder, wanted, Hungry)[0].go())
    assert 39 * 2**20 < peak < 50 * 2**20


def test_a_gauge_with_nothing_to_do_is_read_and_never_put_on(tmp_path: Path) -> None:
    class Idle(Gauge):
        name = "idle"
        columns = (Column("nothing", "nothing", "nothing"),)
        idle = True

        def on(self) -> None:
            raise AssertionError

        off = on

        def read(self) -> Mapping[str, Value]:
            return {"nothing": 7}

    session, _ = start(tmp_path, spec())
    session.parts = replace(session.parts, instruments=(*session.parts.instruments, Idle))
    assert session.go()["nothing"] == 7


def test_every_record_holds_what_backward_keeps_and_the_peak_of_live_tensors_by_kind(tmp_path: Path) -> None:
    summary = start(tmp_path, spec())[0].go()
    B, inputs, width, classes = 128, 64, 16, 10
    # the flattened batch and the hidden layer's output for products, scores' log-softmax and labels for the loss
    assert summary["retained_bytes"] == 4 * B * (inputs + width + classes) + 8 * B + 4
    parameters = 64 * 16 + 16 + 16 * 10 + 10
    assert summary["live_parameters_bytes"] == 4 * parameters
    assert summary["live_optimizer_bytes"] == 2 * 4 * parameters + 4 * 4  # and the step's number for each tensor
    assert summary["live_gradients_bytes"] <= 4 * parameters
    assert summary["live_other_bytes"] == 4 * B * inputs + 8 * B  # the batch
    kinds = ("parameters", "gradients", "optimizer", "activations", "other")
    assert summary["live_peak_bytes"] == sum(summary[f"live_{kind}_bytes"] for kind in kinds)


def test_a_rule_under_which_a_probe_cannot_work_has_its_other_columns(tmp_path: Path) -> None:
    """torch.func.grad allows no hooks on what is saved for backward."""

    class Functional(Toy):
        def __init__(self, task: Task, config: Any, *, device: torch.device, seeds: Seeds) -> None:
            self.w = torch.zeros(3)

        def train_step(self, batch: Batch, progress: Progress) -> Mapping[str, Tensor]:
            self.w -= torch.func.grad(lambda w: (w - 1).square().sum())(self.w)
            return {"loss": self.w.sum()}

    summary = start(tmp_path, spec(method_settings={}), Functional)[0].go()
    assert summary["status"] == "ok"
    assert summary.get("retained_bytes") is None
    assert summary["live_peak_bytes"] > 0


def test_a_run_that_compiles_is_not_probed_by_what_compiled_code_does_not_bear(tmp_path: Path) -> None:
    class Eager(CATALOG.methods["backprop"].load()):  # type: ignore[misc]
        def compile(self) -> None:
            """Compiling takes long, and is not the point."""

    summary = start(tmp_path, spec(compile=True), Eager)[0].go()
    assert summary["status"] == "ok"
    assert not {"retained_bytes", "live_peak_bytes", "flops_per_step"} & summary.keys()
    assert summary["train_flops"] is None
    assert summary["params_inference"] > 0


def test_an_end_probe_leaves_a_table_and_no_trace_in_the_result(tmp_path: Path) -> None:
    plain, _ = start(tmp_path, spec())
    probed, _ = start(tmp_path, spec(instruments=("read-out",)))
    same = {"test_acc", "val_acc", "train_loss"}
    assert {k: v for k, v in plain.go().items() if k in same} == {k: v for k, v in probed.go().items() if k in same}
    table = pd.read_csv(probed.folder.path / "read-out.csv")
    assert table["layer"].tolist() == [0, 1, 2]
    assert not (plain.folder.path / "read-out.csv").exists()


def test_a_trial_of_a_search_is_shown_to_no_end_probe(tmp_path: Path) -> None:
    """It might look at test images, where there are none to validate on."""
    session, _ = start(tmp_path, spec(instruments=("read-out",), eval_draws=0))
    session.go()
    assert not (session.folder.path / "read-out.csv").exists()


def test_trials_see_a_rule_with_stages_in_its_first(tmp_path: Path) -> None:
    """A step in which cascade draws its layers anew would hide by what they learn."""
    session, _ = start(tmp_path, spec("cascade", probe_only=True))
    assert session.go()["weight_transport"] == "yes"
