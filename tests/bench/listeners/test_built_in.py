"""The built-in listeners, held against the real libraries offline."""

import sys
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import pytest

from bench.api.errors import ConfigError
from bench.catalog.catalog import Catalog
from bench.listeners.fan_out import make
from bench.record.files import csv_rows
from bench.runner.events import Ended, Event, Resumed, Started
from tests.bench.listeners.made import BADLY, CURVE, POINTS, WELL, WHOLE, a_run, told

# what the libraries themselves warn of is no business of ours
pytestmark = pytest.mark.filterwarnings("ignore")


def needs(package: str) -> Any:
    return pytest.mark.skipif(find_spec(package) is None, reason=f"needs {package}")


def tell(name: str, events: list[Event], folder: Path, **kind: Any) -> None:
    assert told(make(Catalog(), [name]), events, folder / "results", **kind) == []


def test_csv_has_a_line_for_each_number(tmp_path: Path) -> None:
    runs = [a_run(0), a_run(1)]
    tell(f"csv:{tmp_path}", WHOLE, tmp_path, runs=runs)
    fields, lines = csv_rows((tmp_path / "exp.csv").read_bytes())
    of_first = [dict(zip(fields, line, strict=True)) for line in lines if line[0] == runs[0].spec.run_id]
    assert len(of_first) == len(lines) / 2
    at = {(row["event"], row["step"], row["name"]): row["value"] for row in of_first}
    assert at["point", "10", "val_acc"] == "0.25"
    assert ("point", "20", "val_acc") not in at
    assert (at["end", "", "status"], at["end", "", "test_acc"]) == ("ok", "0.75")
    assert {row["seed"] for row in of_first} == {"0"}


@needs("tensorboard")
def test_tensorboard_reads_curves_settings_and_summary(tmp_path: Path) -> None:
    run = a_run()
    tell(f"tensorboard:{tmp_path}", [Started(), POINTS[0], Ended(BADLY)], tmp_path, runs=[run])
    (folder,) = (tmp_path / "exp").iterdir()
    assert folder.name == f"backprop-mlp-digits-seed0-{run.spec.run_id}"
    assert _scalars(folder)["train_loss"] == [(10, 2.5)]
    other = tmp_path / "other"  # the results folder of another command, which resumes
    tell(f"tensorboard:{tmp_path}", [Started(), Resumed(CURVE[:1]), POINTS[1], Ended(WELL)], other, runs=[run])
    found = _scalars(folder)
    assert found["train_loss"] == [(10, 2.5), (20, 1.5)]
    assert found["val_acc"] == [(10, 0.25)]
    assert found["summary/test_acc"][-1][1] == 0.75


def _scalars(folder: Path) -> dict[str, list[tuple[int, float]]]:
    from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

    events = EventAccumulator(str(folder)).Reload()
    return {tag: [(e.step, e.value) for e in events.Scalars(tag)] for tag in events.Tags()["scalars"]}


@pytest.mark.slow
@needs("mlflow")
def test_mlflow_has_a_run_with_params_metrics_and_status(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("MLFLOW_DISABLE_TELEMETRY", "true")
    uri = f"sqlite:///{tmp_path}/flow.db"
    tell(f"mlflow:{uri}", WHOLE, tmp_path)
    tell(f"mlflow:{uri}", [Started(), POINTS[0], Ended(BADLY)], tmp_path / "other")
    from mlflow import MlflowClient

    client = MlflowClient(uri)
    found = client.get_experiment_by_name("exp")
    assert found is not None
    failed, well = client.search_runs([found.experiment_id], order_by=["attributes.start_time DESC"])
    assert (well.info.status, failed.info.status) == ("FINISHED", "FAILED")
    assert well.info.run_name == "backprop on mlp, digits, seed 0"
    assert well.data.params["backprop.lr"] == str(a_run().spec.method_settings["lr"])
    losses = client.get_metric_history(well.info.run_id, "train_loss")
    assert [(m.step, m.value) for m in losses] == [(10, 2.5), (20, 1.5)]
    assert well.data.metrics["summary.test_acc"] == 0.75
    assert failed.data.tags["bench.reason"] == "the loss is nan"


@pytest.mark.slow
@needs("wandb")
def test_wandb_keeps_runs_side_by_side_offline(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("WANDB_MODE", "offline")
    monkeypatch.setenv("WANDB_DIR", str(tmp_path))
    import wandb

    wandb.teardown()  # settings of the environment are read once
    tell("wandb:mine", WHOLE, tmp_path, runs=[a_run(0), a_run(1)])
    wandb.teardown()
    files = list(tmp_path.glob("wandb/offline-run-*/run-*.wandb"))
    assert len(files) == 2
    history = _of_wandb(files[0])
    assert [(row["step"], row["train_loss"]) for row in history] == [("10", "2.5"), ("20", "1.5")]


def _of_wandb(file: Path) -> list[dict[str, str]]:
    """The points in a small file of W&B: after a head of 7 bytes, records of CRC, length, type and body."""
    from wandb.proto import wandb_internal_pb2

    data, at, rows = file.read_bytes(), 7, []
    while at < len(data):
        length = int.from_bytes(data[at + 4 : at + 6], "little")
        record = wandb_internal_pb2.Record()
        record.ParseFromString(data[at + 7 : at + 7 + length])
        at += 7 + length
        if record.WhichOneof("record_type") == "history":
            rows.append({item.key or item.nested_key[0]: item.value_json for item in record.history.item})
    return rows


@needs("wandb")
def test_wandb_without_a_login_is_refused_before_anything_runs(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("WANDB_MODE", "WANDB_API_KEY"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv("NETRC", str(tmp_path / "none"))
    monkeypatch.setenv("WANDB_CONFIG_DIR", str(tmp_path))
    monkeypatch.setattr(sys, "stdin", None)
    import wandb

    wandb.teardown()
    with pytest.raises(ConfigError, match="run `wandb login`, or set WANDB_MODE=offline"):
        make(Catalog(), ["wandb"])
