"""Packs: the same rows as from folders, in one file whose bytes depend on the records alone."""

import shutil
import zipfile
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
import torch

from bench.api.artifact import Artifact, HeatMap, Images, Lines
from bench.api.column import Column
from bench.api.errors import StoreError
from bench.record import artifacts
from bench.record.folder import RunFolder
from bench.record.pack import pack
from bench.record.results import Results

COLUMNS = (Column("test_acc", "test acc, %", "accuracy"),)
SPEC = dict(method="m", method_settings={}, net="n", net_settings={}, dataset="d", epochs=1, batch_size=2)
LEFT: list[Artifact] = [
    Lines(
        "path", "A way.", "t", torch.arange(3.0), torch.rand(2, 4, 3), ("a", "b"), logarithmic=(False, True),
        emphasis=torch.tensor([1, 3]), pictures=torch.rand(2, 1, 5, 5), limits=(0.0, 1.0),
    ),
    Images("pictures", "Some.", torch.rand(2, 3, 1, 4, 4), ("x", "y"), ("1", "2", "3")),
    HeatMap("heat", "Hot.", "value", torch.rand(2, 2).bfloat16(), ("r", "s"), ("c", "d")),
]  # fmt: skip


@pytest.fixture
def experiment(tmp_path: Path) -> Path:
    for seed in range(3):
        folder = RunFolder(tmp_path / "results", "exp", f"run{seed}")
        folder.create({**SPEC, "seed": seed}, {"env_id": "e"})
        folder.write_curve([{"epoch": 1, "step": 1, "train_loss": 0.5}])
        folder.write_table("angles", ("layer", "cosine"), [{"layer": "a", "cosine": 0.25}])
        folder.write_artifacts(LEFT)
        folder.stderr.touch()
        folder.finish({"status": "ok", "reason": None, "test_acc": seed / 10})
    return tmp_path / "results" / "exp"


def of(folder: Path) -> Results:
    return Results(folder, columns=COLUMNS)


def test_a_pack_reads_as_the_folders_do(experiment: Path, tmp_path: Path) -> None:
    out = tmp_path / "packed" / "exp"
    pack(experiment, out)
    assert sorted(path.name for path in out.iterdir()) == ["records.zip", "summary.csv"]
    plain, packed = of(experiment), of(out)
    pd.testing.assert_frame_equal(plain.runs, packed.runs)
    pd.testing.assert_frame_equal(plain.curves, packed.curves)
    pd.testing.assert_frame_equal(plain.table("angles"), packed.table("angles"))
    assert packed.artifacts.keys() == plain.artifacts.keys()
    assert not [name for name in zipfile.ZipFile(out / "records.zip").namelist() if "stderr" in name]
    assert len(pd.read_csv(out / "summary.csv")) == 3


def test_the_same_records_give_the_same_bytes(experiment: Path, tmp_path: Path) -> None:
    pack(experiment, tmp_path / "a")
    shutil.copytree(experiment, tmp_path / "copy" / "exp")
    pack(tmp_path / "copy" / "exp", tmp_path / "b")
    for name in ("records.zip", "summary.csv"):
        assert (tmp_path / "a" / name).read_bytes() == (tmp_path / "b" / name).read_bytes()


def test_folders_may_lie_beside_a_pack_and_go_before_it(experiment: Path, tmp_path: Path) -> None:
    pack(experiment, experiment)
    shutil.rmtree(experiment / "run1")
    RunFolder(experiment.parent, "exp", "run0").finish({"status": "ok", "reason": None, "test_acc": 0.9})
    assert sorted(of(experiment).runs.test_acc) == [0.1, 0.2, 0.9]


@pytest.mark.parametrize("name", ["../run/spec.json", "/etc/spec.json", "run/../../x"])
def test_a_name_that_would_leave_the_pack_is_refused(tmp_path: Path, name: str) -> None:
    with zipfile.ZipFile(tmp_path / "records.zip", "w") as file:
        file.writestr(name, "{}")
    with pytest.raises(StoreError, match="is refused") as error:
        _ = of(tmp_path).runs
    assert "\n" not in str(error.value)


def test_a_damaged_pack_is_named_with_the_mend(experiment: Path) -> None:
    pack(experiment, experiment)
    path = experiment / "records.zip"
    path.write_bytes(path.read_bytes()[:-40])
    with pytest.raises(StoreError, match=r"records\.zip is corrupt .*; restore the file"):
        _ = of(experiment).runs


def test_artifacts_come_back_as_they_were() -> None:
    back = artifacts.from_bytes(artifacts.to_bytes(LEFT))
    for given, got in zip(LEFT, back, strict=True):
        assert type(got) is type(given)
        for field, value in vars(given).items():
            if isinstance(value, torch.Tensor):
                expected = value.float() if value.is_floating_point() else value
                np.testing.assert_array_equal(getattr(got, field), expected.numpy())
            else:
                assert getattr(got, field) == value, field


def test_artifacts_cannot_smuggle_code(experiment: Path) -> None:
    np.savez(experiment / "run0" / "artifacts.npz", **{"0.y": np.array([object()], dtype=object)})
    with pytest.raises(StoreError, match=r"artifacts\.npz is corrupt"):
        _ = of(experiment).artifacts


def test_another_experiment_s_pack_is_replaced_only_if_asked(experiment: Path, tmp_path: Path) -> None:
    out, other = tmp_path / "out", tmp_path / "other" / "exp"
    pack(experiment, out)
    for seed in (0, 7):
        RunFolder(tmp_path / "other", "exp", f"run{seed}").create({**SPEC, "seed": seed}, None)
    before = {path: path.read_bytes() for path in out.iterdir()}
    with pytest.raises(StoreError, match=r"out holds 2 runs that are not among those to be packed; .*--replace"):
        pack(other, out)
    assert {path: path.read_bytes() for path in out.iterdir()} == before
    pack(experiment, out)  # its own is renewed
    pack(other, out, replace=True)
    assert len(of(out).runs) == 2


def test_a_summary_of_the_user_s_own_is_not_replaced(experiment: Path, tmp_path: Path) -> None:
    (tmp_path / "out").mkdir()
    (tmp_path / "out" / "summary.csv").write_text("mine")
    with pytest.raises(StoreError, match=r"summary.csv is not of a pack"):
        pack(experiment, tmp_path / "out")
    assert [path.name for path in (tmp_path / "out").iterdir()] == ["summary.csv"]
