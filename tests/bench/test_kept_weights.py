"""Weights that a run keeps predict what was recorded, to the last digit, and only with the code that made them."""

import shutil
from pathlib import Path
from statistics import fmean
from typing import Any

import pytest
import torch

import bench
from bench.api.errors import ConfigError, DataError, SourceError, StoreError
from bench.catalog.entry import Entry
from bench.cli import main as cli
from bench.record.merge import merge
from bench.record.pack import pack
from bench.record.schema import WEIGHTS, WEIGHTS_SHA256
from bench.runner.trained import Trained
from tests.bench.runner.made import spec, start, stop_at_step

NETS = {"mlp": {"width": 8, "depth": 1}, "denoiser": {"T": 2, "width": 2, "hidden": 8}}
SMALL: dict[str, Any] = {"epochs": 2, "quiet": True}
MLP = {"net": "mlp", "settings": {"mlp": NETS["mlp"]}}


@pytest.fixture(scope="module")
def study(tmp_path_factory: pytest.TempPathFactory) -> bench.Study:
    """A rule without draws and one with; the best epoch is tested, not the last."""
    results = tmp_path_factory.mktemp("results")
    nets = {"backprop": ["mlp"]}
    methods, nets = ["backprop", "noprop-dt"], {"backprop": ["mlp"]}
    return bench.run(methods, nets=nets, settings=NETS, patience=1, results=results, keep_weights=True, **SMALL)


@pytest.fixture
def folder(study: bench.Study, tmp_path: Path) -> Path:
    """A copy to spoil."""
    return shutil.copytree(study.root, tmp_path / "copy" / study.root.name)


def accuracy(trained: Trained, draw: int | None = None) -> float:
    noise = None
    if draw is not None:
        trained.seeds.for_inference("test", draw)
        noise = trained.seeds.inference
    hits = [(trained.predict(x, noise).argmax(1) == y) for x, y in trained.test]
    return float(torch.cat(hits).sum()) / len(torch.cat(hits))


def first(study: bench.Study) -> str:
    return str(study.runs["run_id"][0])


def test_predictions_give_the_recorded_accuracies_to_the_last_digit(study: bench.Study) -> None:
    assert len(study.runs) == 2
    for run in study.runs.itertuples():
        trained = study.method(run.run_id)
        assert trained.spec.run_id == run.run_id
        assert accuracy(trained) == run.test_acc_noise_free
        if run.method == "noprop-dt":
            assert fmean(accuracy(trained, draw) for draw in range(5)) == run.test_acc
        else:
            assert accuracy(trained) == run.test_acc
    assert not trained.predict(next(iter(trained.test)).x).requires_grad


def test_a_pack_and_a_merge_keep_them_unless_told(study: bench.Study, tmp_path: Path) -> None:
    run_id = first(study)
    expected = accuracy(study.method(run_id))
    pack(study.root, tmp_path / "packed" / "default")
    pack(study.root, tmp_path / "light" / "default", weights=False)
    assert accuracy(bench.load(tmp_path / "packed").method(run_id)) == expected
    assert WEIGHTS_SHA256 not in (tmp_path / "packed" / "default" / "summary.csv").read_text()
    with pytest.raises(StoreError, match="has no weights; run it again with --keep-weights"):
        bench.load(tmp_path / "light").method(run_id)
    merge([tmp_path / "light", tmp_path / "packed"], tmp_path / "out")
    assert accuracy(bench.load(tmp_path / "out").method(run_id)) == expected


def test_they_change_no_run_and_are_made_where_they_lack(study: bench.Study, tmp_path: Path) -> None:
    asked = {"methods": ["backprop"], "results": tmp_path, **MLP, **SMALL}
    numbers, ended = [], []
    for keep in (False, True, True, False):
        kept = bench.run(**asked, keep_weights=keep)
        numbers.append(kept.runs[["run_id", "test_acc", "val_acc", "train_loss"]])
        ended.append(kept.rows[0].finished_at)
    assert all(of.equals(numbers[0]) for of in numbers)
    assert ended[0] != ended[1] == ended[2] == ended[3]
    assert accuracy(kept.method(first(kept))) == kept.runs["test_acc"][0]


def test_a_run_that_was_interrupted_keeps_those_of_an_unbroken_one(tmp_path: Path) -> None:
    kept = []
    for name, steps in (("unbroken", None), ("broken", 3)):
        for meddle in [None] if steps is None else [lambda session: stop_at_step(session, 3), None]:
            session, _ = start(tmp_path / name, spec(), meddle=meddle)
            session.keep_weights = True
            summary = session.go()
            assert (WEIGHTS_SHA256 in summary) == (meddle is None)
        kept.append((session.folder.path / WEIGHTS).read_bytes())
    assert kept[0] == kept[1]


def test_what_does_not_fit_is_refused(study: bench.Study, folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    run_id, copied = first(study), bench.load(folder)
    with pytest.raises(ConfigError, match="unknown run 'nothing'"):
        copied.method("nothing")
    file = folder / run_id / WEIGHTS
    file.write_bytes(file.read_bytes()[:-4] + b"0000")
    with pytest.raises(StoreError, match=r"weights.safetensors is corrupt \(its hash is not that of summary.json\)"):
        copied.method(run_id)
    with monkeypatch.context() as patch:
        patch.setattr(Entry, "source_hash", lambda self: "other")
        with pytest.raises(SourceError, match=f"run {run_id} was trained by other code of"):
            study.method(run_id)
    monkeypatch.setattr("bench.data.load", lambda *_, **__: type("Loaded", (), {"fingerprint": "other"}))
    with pytest.raises(DataError, match="the data are not those that run"):
        study.method(run_id)


def test_a_state_that_cannot_be_kept_is_told_before_training(tmp_path: Path) -> None:
    plugin = tmp_path / "odd.py"
    plugin.write_text(ODD)
    asked = {"methods": ["odd"], **MLP, "plugins": [plugin], "results": tmp_path, **SMALL}
    assert list(bench.run(**asked, experiment="plain").runs["status"]) == ["ok"]
    (run,) = bench.run(**asked, keep_weights=True).runs.itertuples()
    assert run.status == "crashed"
    assert "state_dict() has a set in 'seen', which cannot be kept as weights" in run.reason
    assert run.steps != run.steps  # none was taken


ODD = """
import torch
from bench import Claims, Method, MethodInfo, register

@register
class Odd(Method):
    info = MethodInfo(name="odd", title="Odd", family="toy", paper="", claims=Claims("none"), nets=("mlp",))

    def __init__(self, task, config, *, device, seeds):
        self.seen = set()

    def state_dict(self):
        return {"seen": self.seen}

    def load_state_dict(self, state):
        return self

    def train_step(self, batch, progress):
        return {"loss": torch.zeros(())}

    def predict(self, x):
        return torch.zeros(len(x), 10)
"""


def test_the_command_line_and_its_plan_know_them(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(tmp_path)
    command = ["run", "--methods", "drtp", "--net", "mlp", "--epochs", "1", "--set", "mlp.width=8", "--quiet"]
    done = []
    for flags in ([], ["--dry-run"], ["--dry-run", "--keep-weights"], ["--keep-weights"]):
        with pytest.raises(SystemExit) as ended:
            cli.main([*command, *flags])
        assert ended.value.code == 0
        out = capsys.readouterr().out
        done += [line.split()[-3] for line in out.splitlines() if "--dry-run" in flags and "drtp" in line][:1]
    assert done == ["1", "0"]
    assert len(list(tmp_path.glob(f"results/default/*/{WEIGHTS}"))) == 1
